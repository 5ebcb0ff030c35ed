package nex_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"nex"
)

// FuzzSignedClaims signs any payload: who has a key may say what they like.
func FuzzSignedClaims(f *testing.F) {
	k := vector[keyring](f, "crypto")
	issuer := keyOf(f, k.Issuer.Seed)
	b64 := base64.RawURLEncoding.EncodeToString
	head := b64([]byte(`{"typ":"JWT","alg":"ed25519-nkey"}`))
	for _, payload := range []string{
		`{"sub":"echofn","nats":{"hash":"` + k.Artifact.SHA256 + `","version":2}}`,
		`{"sub":"echofn","exp":1,"nbf":2,"nats":{"use":"deploy","nonce":"n","namespace":"ns","node":"N1","request":"r"}}`,
		`{"sub":"x","nats":{"use":"stop","nonce":"n","namespace":"ns","node":"N1","workload":"w","expires":99999999999999999999}}`,
		`{"sub":"x","nats":{"use":5,"expires":-1e308,"hash":["a"]}}`, `{"nats":null}`, `{"exp":9223372036854775807,"nbf":-9223372036854775808}`,
		`{"type":"x","tags":["a"],"sub":"a\nb"}`,
	} {
		f.Add([]byte(payload), 3, byte('A'))
	}
	f.Fuzz(func(t *testing.T, payload []byte, at int, letter byte) {
		var fields map[string]json.RawMessage
		if json.Unmarshal(payload, &fields) != nil || fields == nil {
			return
		}
		fields["iss"] = marshal(t, k.Issuer.Public)
		signed := head + "." + b64(marshal(t, fields))
		sig, err := issuer.Sign([]byte(signed))
		if err != nil {
			t.Fatal(err)
		}
		token := signed + "." + b64(sig)
		c, err := nex.DecodeClaims(token)
		if err != nil {
			return
		}
		sound(t, c)
		// Nobody else can make other claims of these, nor the same again.
		i := max(at, -(at+1)) % len(token)
		for _, other := range []string{token[:i] + string(letter) + token[i+1:], token[:i] + string(letter) + token[i:], token[:i] + token[i+1:]} {
			if _, err := nex.DecodeClaims(other); err == nil && other != token {
				t.Errorf("%q is as good as %q", other, token)
			}
		}
	})
}

// sound checks what holds for all claims.
func sound(t *testing.T, c nex.Claims) {
	t.Helper()
	if c.Issuer == "" {
		t.Errorf("%+v are of nobody", c)
	}
	if d := c.Digest(); d != "" && (len(d) != 64 || d != c.Hash) {
		t.Errorf("digest %q of hash %q", d, c.Hash)
	}
	for _, p := range []nex.Purpose{nex.ForDeploy, nex.ForStop, nex.ForLameDuck} {
		err := c.Allow(p, c.Namespace, c.Node)
		good := !c.Bound() || c.Purpose == p && c.Nonce != "" && !c.Expires.IsZero()
		if (err == nil) != good {
			t.Errorf("%+v for %s: %v", c, p, err)
		}
		if other := c.Allow(p, c.Namespace+"x", c.Node); c.Bound() && other == nil {
			t.Errorf("%+v are good for another namespace", c)
		}
		if err != nil && (nex.CodeOf(err) != nex.Unauthorized || !strings.HasPrefix(err.Error(), "the claims ")) {
			t.Errorf("%+v: %s: %v", c, nex.CodeOf(err), err)
		}
	}
	if !c.Expires.IsZero() && c.ValidAt(c.Expires) || !c.NotBefore.IsZero() && c.ValidAt(c.NotBefore.Add(-time.Second)) {
		t.Errorf("%+v are valid out of their time", c)
	}
}
