package nex_test

import (
	"encoding/base64"
	"maps"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"nex"
)

func TestEnvironmentOfVectorOpens(t *testing.T) {
	k := vector[keyring](t, "crypto")
	env, err := nex.OpenEnvironment(k.Environment.Sealed, keyOf(t, k.NodeX.Seed), k.SenderX.Public)
	if err != nil || !maps.Equal(env, k.Environment.Plain) {
		t.Errorf("got %v, %v", env, err)
	}
}

func TestEnvironmentRoundTrip(t *testing.T) {
	k := vector[keyring](t, "crypto")
	sender, node := keyOf(t, k.SenderX.Seed), keyOf(t, k.NodeX.Seed)
	for _, env := range []map[string]string{nil, {}, {"": ""}, {"A": "1", "ü": "<&>\"\x00\n", "LONG": strings.Repeat("x", 1<<20)}} {
		sealed, err := nex.SealEnvironment(env, sender, k.NodeX.Public)
		if err != nil {
			t.Fatal(err)
		}
		got, err := nex.OpenEnvironment(sealed, node, k.SenderX.Public)
		if err != nil || !maps.Equal(got, env) {
			t.Errorf("%d variables came back as %d, %v", len(env), len(got), err)
		}
	}
}

// TestOpenEnvironmentRefuses also fixes the texts that nodes pass on.
func TestOpenEnvironmentRefuses(t *testing.T) {
	k := vector[keyring](t, "crypto")
	node := keyOf(t, k.NodeX.Seed)
	const secret = "hunter2"
	seal := func(plain string) string {
		box, err := keyOf(t, k.SenderX.Seed).Seal([]byte(plain), k.NodeX.Public)
		if err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(box)
	}
	notObject := "the sealed text is not a JSON object of strings"
	for _, c := range []struct {
		sealed, sender, want string
	}{
		{"!" + k.Environment.Sealed, k.SenderX.Public, "illegal base64 data at input byte 0"},
		{k.Environment.Sealed, k.NodeX.Public, "nkeys: could not decrypt input"},
		{k.Environment.Sealed, k.Issuer.Public, ""},
		{k.Environment.Sealed, "", ""},
		{"", k.SenderX.Public, ""},
		{base64.StdEncoding.EncodeToString([]byte("xkv1")), k.SenderX.Public, ""},
		{seal(secret), k.SenderX.Public, notObject},
		{seal(`{"PASSWORD":"` + secret), k.SenderX.Public, notObject},
		{seal(`{"` + secret + `":5}`), k.SenderX.Public, notObject},
		{seal(`["` + secret + `"]`), k.SenderX.Public, notObject},
	} {
		env, err := nex.OpenEnvironment(c.sealed, node, c.sender)
		if err == nil || c.want != "" && err.Error() != c.want || strings.Contains(err.Error(), secret) {
			t.Errorf("%.20q from %.5q: %v, %v", c.sealed, c.sender, env, err)
		}
	}
}

// TestOverlongKeys: a key may be as long as the message it comes in.
func TestOverlongKeys(t *testing.T) {
	k := vector[keyring](t, "crypto")
	for _, size := range []int{0, 31, 33, 64, 1 << 16} {
		key, err := nkeys.Encode(nkeys.PrefixByteCurve, make([]byte, size))
		if err != nil {
			continue // not even nkeys makes it
		}
		if _, err := nex.OpenEnvironment(k.Environment.Sealed, keyOf(t, k.NodeX.Seed), string(key)); err == nil {
			t.Errorf("opened with a sender's key of %d bytes", size)
		}
		if _, err := nex.SealEnvironment(nil, keyOf(t, k.SenderX.Seed), string(key)); err == nil {
			t.Errorf("sealed for a key of %d bytes", size)
		}
	}
}

func FuzzOpenEnvironment(f *testing.F) {
	const secret = "hunter2"
	k := vector[keyring](f, "crypto")
	node, sender := keyOf(f, k.NodeX.Seed), keyOf(f, k.SenderX.Seed)
	f.Add(k.Environment.Sealed, k.SenderX.Public, `{"A":"`, `"}`)
	f.Add("eGt2MQ==", k.NodeX.Public, "", "")
	f.Add("", "", `{"`, `":1}`)
	f.Fuzz(func(t *testing.T, sealed, from, before, after string) {
		_, _ = nex.OpenEnvironment(sealed, node, from)
		box, err := sender.Seal([]byte(before+secret+after), k.NodeX.Public)
		if err != nil {
			t.Fatal(err)
		}
		_, err = nex.OpenEnvironment(base64.StdEncoding.EncodeToString(box), node, k.SenderX.Public)
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows the secret: %v", err)
		}
	})
}
