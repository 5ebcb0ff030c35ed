package rawclient_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nkeys"

	"nex/internal/rawclient"
)

// golden is testdata/wire/crypto.json.
type golden struct {
	Issuer   keyPair
	NodeX    keyPair `json:"node_x"`
	SenderX  keyPair `json:"sender_x"`
	Artifact struct {
		SHA256 string `json:"sha256_hex"`
	}
	Environment struct {
		Plain  map[string]string
		Sealed string `json:"sealed_base64"`
	}
	JWT map[string]string
}

type keyPair struct{ Public, Seed string }

func (k keyPair) open(t *testing.T) nkeys.KeyPair {
	t.Helper()
	pair, err := nkeys.FromSeed([]byte(k.Seed))
	if k.Seed[:2] == "SX" {
		pair, err = nkeys.FromCurveSeed([]byte(k.Seed))
	}
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func read(t *testing.T) (g golden) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "wire", "crypto.json"))
	if err == nil {
		err = json.Unmarshal(data, &g)
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestSignMakesTheGoldenTokens byte for byte: signatures of nkeys are always
// the same.
func TestSignMakesTheGoldenTokens(t *testing.T) {
	g := read(t)
	const deployed, stopped = 1795224567, 1795224569
	for name, c := range map[string]rawclient.Claims{
		"deploy_ok":       {IssuedAt: deployed, Subject: "echofn", Data: rawclient.Data{Hash: g.Artifact.SHA256}},
		"deploy_cli_hash": {IssuedAt: deployed, Subject: "echofn", Data: rawclient.Data{Hash: "abc12345TODOmakethisreal"}},
		"deploy_badname":  {IssuedAt: deployed, Subject: "bad name!", Data: rawclient.Data{Hash: g.Artifact.SHA256}},
		"deploy_expired":  {IssuedAt: deployed, Expires: 1600000000, Subject: "echofn", Data: rawclient.Data{Hash: g.Artifact.SHA256}},
		"stop_ok":         {IssuedAt: stopped, Subject: "echofn"},
		"stop_wrong_name": {IssuedAt: stopped, Subject: "someoneelse"},
	} {
		token, err := rawclient.Sign(g.Issuer.open(t), c)
		if err != nil || token != g.JWT[name] {
			t.Errorf("%s: %v\ngot  %s\nwant %s", name, err, token, g.JWT[name])
		}
	}
}

func TestSealedEnvironmentOpens(t *testing.T) {
	g := read(t)
	c := rawclient.Client{Sender: g.SenderX.open(t)}
	sealed, err := c.Seal(g.Environment.Plain, g.NodeX.Public)
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"ours": sealed, "the golden one": g.Environment.Sealed} {
		box, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := g.NodeX.open(t).Open(box, g.SenderX.Public)
		var got map[string]string
		if err != nil || json.Unmarshal(plain, &got) != nil || len(got) != len(g.Environment.Plain) || got["mode"] != "test" {
			t.Errorf("%s: %q, %v", what, plain, err)
		}
	}
}
