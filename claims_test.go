package nex_test

import (
	"crypto/sha256"
	"encoding/base64"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"nex"
)

// keyring is crypto.json.
type keyring struct {
	Issuer      keyPair
	OtherIssuer keyPair `json:"other_issuer"`
	Node        keyPair
	NodeX       keyPair `json:"node_x"`
	SenderX     keyPair `json:"sender_x"`
	Artifact    struct {
		SHA256 string `json:"sha256_hex"`
	}
	Environment struct {
		Plain  map[string]string
		Sealed string `json:"sealed_base64"`
	}
	JWT    map[string]string
	Expect []struct {
		JWT, Sub, Iss, Hash, For string
		Valid                    bool
	}
}

type keyPair struct{ Public, Seed string }

func keyOf(t testing.TB, seed string) nkeys.KeyPair {
	t.Helper()
	kp, err := nkeys.FromSeed([]byte(seed))
	if strings.HasPrefix(seed, "SX") {
		kp, err = nkeys.FromCurveSeed([]byte(seed))
	}
	if err != nil {
		t.Fatal(err)
	}
	return kp
}

func (k keyring) keys(t testing.TB) nex.Keys {
	return nex.Keys{Issuer: keyOf(t, k.Issuer.Seed), Sender: keyOf(t, k.SenderX.Seed)}
}

func decodeClaims(t testing.TB, token string) nex.Claims {
	t.Helper()
	c, err := nex.DecodeClaims(token)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// mayDeploy and mayStop are what Nex 0.2.7 asks of claims.
func mayDeploy(c nex.Claims, now time.Time) bool { return nex.ValidName(c.Name) && c.ValidAt(now) }

func mayStop(stop, start nex.Claims) bool {
	return stop.ID != start.ID && !stop.IssuedAt.Equal(start.IssuedAt) && stop.Name == start.Name && stop.Issuer == start.Issuer
}

func TestClaimsOfVectors(t *testing.T) {
	k := vector[keyring](t, "crypto")
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	for _, e := range k.Expect {
		c := decodeClaims(t, k.JWT[e.JWT])
		valid := mayDeploy(c, now)
		if e.For != "" {
			start, _, _ := strings.Cut(e.For, " ")
			valid = mayStop(c, decodeClaims(t, k.JWT[start]))
		}
		if valid != e.Valid {
			t.Errorf("%s for %q: valid is %v", e.JWT, e.For, valid)
		}
		if e.Sub != "" && c.Name != e.Sub || e.Iss != "" && c.Issuer != e.Iss || e.Hash != "" && c.Hash != e.Hash {
			t.Errorf("%s: %+v", e.JWT, c)
		}
	}
}

func TestDecodeClaims(t *testing.T) {
	k := vector[keyring](t, "crypto")
	ok := decodeClaims(t, k.JWT["deploy_ok"])
	want := nex.Claims{
		ID: "TU3IW6RIZSAICX6PL46NCX3FKALR4VKEXPDDVVFXSHV7VPV5QHVQ", Issuer: k.Issuer.Public, Name: "echofn",
		Hash: k.Artifact.SHA256, IssuedAt: time.Unix(1795224567, 0),
	}
	if ok != want {
		t.Errorf("got  %+v\nwant %+v", ok, want)
	}
	if ok.Digest() != k.Artifact.SHA256 {
		t.Errorf("digest %q", ok.Digest())
	}
	if c := decodeClaims(t, k.JWT["deploy_cli_hash"]); c.Digest() != "" || c.Hash == "" || c.ID != ok.ID {
		t.Errorf("placeholder: %+v", c)
	}
	if c := decodeClaims(t, k.JWT["deploy_expired"]); !c.Expires.Equal(time.Unix(1600000000, 0)) {
		t.Errorf("expires %v", c.Expires)
	}
	if c := decodeClaims(t, k.JWT["stop_ok"]); c.Hash != "" || c.Digest() != "" || c.Bound() {
		t.Errorf("stop: %+v", c)
	}
}

func TestDecodeClaimsRefuses(t *testing.T) {
	k := vector[keyring](t, "crypto")
	ok := strings.Split(k.JWT["deploy_ok"], ".")
	other := strings.Split(k.JWT["deploy_other_issuer"], ".")
	for name, token := range map[string]string{
		"nothing": "", "one chunk": "x", "dots": "..", "four chunks": strings.Join(append(ok, "x"), "."),
		"other signature": ok[0] + "." + ok[1] + "." + other[2],
		"no signature":    ok[0] + "." + ok[1] + ".",
		"other payload":   ok[0] + "." + other[1] + "." + ok[2],
		"a spare bit":     k.JWT["deploy_ok"][:len(k.JWT["deploy_ok"])-1] + "h",
		"a line break":    k.JWT["deploy_ok"] + "\n",
		"version 1":       version1(t, k, `"nats":{"hash":"x"}`),
		"version 1 alone": version1(t, k, `"type":"x"`), // on which the library panics
		"algorithm none":  base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"JWT","alg":"none"}`)) + "." + ok[1] + ".",
	} {
		if c, err := nex.DecodeClaims(token); err == nil || !strings.HasPrefix(err.Error(), "could not decode workload JWT: ") {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	for _, token := range []string{"x", ""} {
		if _, err := nex.DecodeClaims(token); err == nil || err.Error() != "could not decode workload JWT: expected 3 chunks" {
			t.Errorf("%q: %v", token, err)
		}
	}
}

// version1 makes claims as the first version of the library did.
func version1(t testing.TB, k keyring, more string) string {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	payload := b64([]byte(`{"iss":"` + k.Issuer.Public + `","sub":"echofn",` + more + `}`))
	sig, err := keyOf(t, k.Issuer.Seed).Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return b64([]byte(`{"typ":"jwt","alg":"ed25519"}`)) + "." + payload + "." + b64(sig)
}

func TestValidAt(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	for _, c := range []struct {
		claims nex.Claims
		now    int64
		want   bool
	}{
		{nex.Claims{}, 5, true},
		{nex.Claims{Expires: at(6)}, 5, true}, {nex.Claims{Expires: at(5)}, 5, false}, {nex.Claims{Expires: at(4)}, 5, false},
		{nex.Claims{NotBefore: at(5)}, 5, true}, {nex.Claims{NotBefore: at(6)}, 5, false},
		{nex.Claims{NotBefore: at(4), Expires: at(6)}, 5, true},
	} {
		if got := c.claims.ValidAt(at(c.now)); got != c.want {
			t.Errorf("%+v at %d: %v", c.claims, c.now, got)
		}
	}
}

// TestTimesBeyondTime: a claim may hold any 64 bits as a time.
func TestTimesBeyondTime(t *testing.T) {
	issuer := keyOf(t, vector[keyring](t, "crypto").Issuer.Seed)
	for _, c := range []struct {
		notBefore, expires int64
		want               bool
	}{
		{0, math.MaxInt64, true}, {math.MaxInt64, 0, false}, {0, math.MinInt64, false}, {math.MinInt64, 0, true}, {0, -1, false},
	} {
		g := jwt.NewGenericClaims("echofn")
		g.NotBefore, g.Expires = c.notBefore, c.expires
		token, err := g.Encode(issuer)
		if err != nil {
			t.Fatal(err)
		}
		if got := decodeClaims(t, token).ValidAt(time.Now()); got != c.want {
			t.Errorf("not before %d, expires %d: valid is %v", c.notBefore, c.expires, got)
		}
	}
}

func TestDigestIsLowercaseHex(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4)
	for hash, want := range map[string]string{
		hex: hex, strings.ToUpper(hex): "", hex[1:]: "", hex + "0": "", hex + "\n": "", "": "", "abc12345TODOmakethisreal": "",
	} {
		if got := (nex.Claims{Hash: hash}).Digest(); got != want {
			t.Errorf("%q: got %q", hash, got)
		}
	}
}

func TestObjectDigest(t *testing.T) {
	sum := sha256.Sum256([]byte("(subject, payload) => payload;\n"))
	for in, want := range map[string]string{
		"SHA-256=" + base64.URLEncoding.EncodeToString(sum[:]): vector[keyring](t, "crypto").Artifact.SHA256,
		"SHA-256=-_8=": "fbff", "": "", "SHA-256=": "", "SHA-256=+/8=": "", "SHA-256=!": "", "MD5=AA==": "", "sha-256=AA==": "",
	} {
		if got := nex.ObjectDigest(in); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"echofn": true, "Echo-fn_2": true, strings.Repeat("x", 255): true, strings.Repeat("x", 256): false, "": false, "bad name!": false, "a.b": false, "a\n": false, "ü": false, "*": false,
	} {
		if nex.ValidName(name) != want {
			t.Errorf("%q: want %v", name, want)
		}
	}
}

func FuzzDecodeClaims(f *testing.F) {
	for _, token := range vector[keyring](f, "crypto").JWT {
		f.Add(token)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	f.Add("..")
	f.Add(b64([]byte(`null`)) + "." + b64([]byte(`null`)) + ".")
	f.Add(b64([]byte(`{"typ":"JWT","alg":"ed25519"}`)) + "." + b64([]byte(`{"nats":null}`)) + ".AA")
	f.Fuzz(func(t *testing.T, token string) {
		c, err := nex.DecodeClaims(token)
		if err != nil {
			return
		}
		if c.Issuer == "" {
			t.Errorf("%q was signed by nobody", token)
		}
		signature := token[strings.LastIndexByte(token, '.')+1:]
		if raw, err := base64.RawURLEncoding.Strict().DecodeString(signature); err != nil || b64(raw) != signature {
			t.Errorf("%q has a signature with two texts", token)
		}
	})
}
