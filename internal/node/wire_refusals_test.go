package node_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"nex/internal/nextest"
	"nex/internal/rawclient"
)

// fault is one fault of a deploy request.
type fault struct {
	name     string
	workload func(*rawclient.Workload)
	spoil    func(map[string]any)
	code     string
	text     string
}

// refuses sends a request for a function, with each fault in turn.
func (w *wired) refuses(t *testing.T, faults []fault) {
	t.Helper()
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			workload := rawclient.Workload{Name: "echofn", Type: "v8", Key: "echofnjs", Triggers: []string{"js.echo"}}
			if f.workload != nil {
				f.workload(&workload)
			}
			reply := w.ask(t, "$NEX.DEPLOY.default."+w.node(), w.request(t, workload, f.spoil))
			wantReply(t, f.name, reply, refusal("run", f.code, f.text))
		})
	}
	info, err := w.Info(w.node())
	if err != nil || !bytes.Contains(info, []byte(`"machines":[]`)) {
		t.Errorf("something runs: %s, %v", info, err)
	}
}

// set spoils one field of a request.
func set(field string, value any) func(map[string]any) {
	return func(r map[string]any) { r[field] = value }
}

// sign spoils a request with other claims.
func sign(t *testing.T, issuer nkeys.KeyPair, c rawclient.Claims) func(map[string]any) {
	t.Helper()
	token, err := rawclient.Sign(issuer, c)
	if err != nil {
		t.Fatal(err)
	}
	return set("workload_jwt", token)
}

// TestWireRefusesRequests goes through the texts of Nex 0.2.7 that are about
// the request itself.
func TestWireRefusesRequests(t *testing.T) {
	w := newWired(t, nextest.Server(t), `{"workload_types": ["native", "v8"]}`)
	issuer, now := w.Issuer, time.Now().Unix()
	w.upload(t, "echofnjs", w.keys.Artifact.Text)
	stranger, err := nkeys.CreateCurveKeys()
	if err != nil {
		t.Fatal(err)
	}
	strange, _ := stranger.PublicKey() // of a pair just made
	tampered, err := rawclient.Sign(issuer, rawclient.Claims{IssuedAt: now, Subject: "echofn"})
	if err != nil {
		t.Fatal(err)
	}
	other, err := rawclient.Sign(issuer, rawclient.Claims{IssuedAt: now, Subject: "other"})
	if err != nil {
		t.Fatal(err)
	}
	tampered = tampered[:strings.LastIndex(tampered, ".")] + other[strings.LastIndex(other, "."):]
	const claims = "Invalid deploy request: "
	const environment = "Failed to decrypt environment for deploy request: "
	w.refuses(t, []fault{
		{"type", nil, set("type", "oci"), "unsupported", "Unsupported workload type on this node: oci"},
		{"no type", nil, set("type", ""), "unsupported", "Unsupported workload type on this node: "},
		{"type not taken here", nil, set("type", "wasm"), "unsupported", "Unsupported workload type on this node: wasm"},
		{"triggers of a service", nil, set("type", "native"), "invalid", "Unsupported workload type for trigger subject registration: native"},
		{"trigger", nil, set("trigger_subjects", []string{"ok.subject", "$JS.API.>"}), "denied", "The trigger subject $JS.API.> overlaps with subject(s) in this node's deny list"},
		{"base64", nil, set("environment", "!!"), "invalid", environment + "illegal base64 data at input byte 0"},
		{"sealed for another", nil, set("environment", w.seal(t, "{}", strange)), "invalid", environment + "nkeys: could not decrypt input"},
		// Nex 0.2.7 says what of it is no JSON, and with that some of the secret.
		{"environment of no JSON", nil, set("environment", w.seal(t, "nope", w.keys.NodeX.Public)), "invalid", environment + "the sealed text is not a JSON object of strings"},
		{"chunks", nil, set("workload_jwt", "abc"), "unauthorized", claims + "could not decode workload JWT: expected 3 chunks"},
		{"no claims", nil, set("workload_jwt", ""), "unauthorized", claims + "could not decode workload JWT: expected 3 chunks"},
		{"signature", nil, set("workload_jwt", tampered), "unauthorized", claims + "could not decode workload JWT: claim failed V2 signature verification"},
		{"name", nil, sign(t, issuer, rawclient.Claims{IssuedAt: now, Subject: "bad name!"}), "invalid", claims + "workload name claim ('bad name!') does not match requirements (^[a-zA-Z0-9_-]+$)"},
		{"no name", nil, sign(t, issuer, rawclient.Claims{IssuedAt: now}), "invalid", claims + "workload name claim ('') does not match requirements (^[a-zA-Z0-9_-]+$)"},
		{"expired", nil, sign(t, issuer, rawclient.Claims{IssuedAt: now, Subject: "echofn", Expires: now - 1}), "unauthorized", claims + "standard claims within JWT are not valid"},
		{"not yet", nil, sign(t, issuer, rawclient.Claims{IssuedAt: now, Subject: "echofn", NotBefore: now + 1000}), "unauthorized", claims + "standard claims within JWT are not valid"},
		{"no trigger", func(w *rawclient.Workload) { w.Triggers = nil }, nil, "invalid", "Failed to deploy workload: workload rejected by agent: at least one trigger subject is required for this workload type"},
		{"essential function", func(w *rawclient.Workload) { w.Essential = true }, nil, "invalid", "Failed to deploy workload: workload rejected by agent: essential flag is not supported for workload type"},
	})
	for body, text := range map[string]string{
		"":           "unexpected end of JSON input",
		"{":          "unexpected end of JSON input",
		"nope":       "invalid character 'o' in literal null (expecting 'u')",
		`{"argv":5}`: "json: cannot unmarshal number into Go struct field DeployRequest.argv of type []string",
	} {
		wantReply(t, body, w.ask(t, "$NEX.DEPLOY.default."+w.node(), []byte(body)), refusal("run", "invalid", "Unable to deserialize deploy request: "+text))
	}
}

// TestWireRefusesArtifacts goes through the texts that are about what is
// fetched.
func TestWireRefusesArtifacts(t *testing.T) {
	w := newWired(t, nextest.Server(t), `{"node_limits": {"max_workload_bytes": 1000}, "engine": "quickjs"}`) // engines word errors of syntax in their own ways
	for key, content := range map[string]string{
		"echofnjs": w.keys.Artifact.Text, "syntax.js": "() => {", "text": "hello", "large": strings.Repeat("x", 1001),
	} {
		w.upload(t, key, content)
	}
	const fetch, agent = "Failed to cache workload bytes: nats: ", "Failed to deploy workload: workload rejected by agent: Failed to validate workload: "
	key := func(typ, name string) func(*rawclient.Workload) {
		return func(w *rawclient.Workload) {
			if w.Type, w.Key = typ, name; typ == "native" {
				w.Triggers = nil
			}
		}
	}
	w.refuses(t, []fault{
		{"bucket", nil, set("location", rawclient.Location("nats", "NOPE", "/x")), "not_found", fetch + "stream not found"},
		{"object", nil, set("location", rawclient.Location("nats", bucket, "/zzz")), "not_found", fetch + "object not found"},
		{"bucket's name", nil, set("location", rawclient.Location("nats", "a.b", "/x")), "invalid", fetch + "invalid object-store name"},
		{"size", key("v8", "large"), nil, "exhausted", "Workload file size would exceed node limitations"},
		{"script", key("v8", "syntax.js"), nil, "invalid", agent + "failed to compile source for execution: syntax.js:1:8: SyntaxError: unexpected token in expression: ''"},
		{"module", key("wasm", "text"), nil, "invalid", agent + `failed to compile module: text is not a WebAssembly module: it does not begin with \0asm (invalid magic number)`},
		{"executable", key("native", "text"), nil, "invalid", agent + "native binary is not an executable: neither a binary for " + runtime.GOOS + "/" + runtime.GOARCH + " nor a script that begins with #!"},
	})
}

// TestWireRefusesForTheNode goes through the texts that are about the node.
func TestWireRefusesForTheNode(t *testing.T) {
	keys := golden[keyring](t, "crypto")
	srv := nextest.Server(t)
	for file, f := range map[string]fault{
		`{"valid_issuers": ["` + keys.Other.Public + `"]}`: {code: "unauthorized", text: "invalid workload issuer: " + keys.Issuer.Public},
		`{"node_limits": {"max_total_bytes": 10}}`:         {code: "exhausted", text: "Workload file size would exceed node total limitations"},
	} {
		t.Run(f.text, func(t *testing.T) {
			w := newWired(t, srv, file)
			w.upload(t, "echofnjs", keys.Artifact.Text)
			w.refuses(t, []fault{f})
			w.end()
		})
	}
	t.Run("full, then lame duck", func(t *testing.T) {
		w := newWired(t, srv, `{"node_limits": {"max_workloads": 1}}`)
		function := rawclient.Workload{Name: "one", Type: "v8", Key: "echofnjs", Triggers: []string{"js.one"}}
		w.deploy(t, w.request(t, function, nil))
		function.Name = "two"
		wantReply(t, "full", w.ask(t, "$NEX.DEPLOY.default."+w.node(), w.request(t, function, nil)),
			refusal("run", "exhausted", "Node is at maximum workload limit. Deploy request denied"))
		w.ask(t, "$NEX.LAMEDUCK."+w.node(), nil)
		for _, body := range [][]byte{w.request(t, function, nil), {}} { // also what is no request
			wantReply(t, "lame duck", w.ask(t, "$NEX.DEPLOY.default."+w.node(), body), lameDuckFor(body))
		}
		w.end()
	})
	t.Run("no agent", func(t *testing.T) {
		s := settings(t)
		s.PoolSize = 0 // else the node tries for longer
		s.AgentPath = filepath.Join(t.TempDir(), "agent")
		if err := os.WriteFile(s.AgentPath, []byte("#!/bin/sh\nexit 3\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		w := newWiredWith(t, srv, s)
		reply := w.ask(t, "$NEX.DEPLOY.default."+w.node(), w.request(t, rawclient.Workload{Name: "f", Type: "v8", Key: "echofnjs", Triggers: []string{"f"}}, nil))
		var e struct{ Error, Code string }
		if err := json.Unmarshal(reply, &e); err != nil || !strings.HasPrefix(e.Error, "Failed to get agent client from pool: ") || e.Code == "" {
			t.Errorf("got %s", reply)
		}
		w.end()
	})
}

// lameDuckFor is the answer of a lame duck: to what cannot be read, that.
func lameDuckFor(body []byte) string {
	if len(body) == 0 {
		return refusal("run", "invalid", "Unable to deserialize deploy request: unexpected end of JSON input")
	}
	return refusal("run", "lame_duck", "Node is in lame duck mode. Workload deploy request denied")
}

// TestWireRefusesStops goes through the texts of STOP and LAMEDUCK.
func TestWireRefusesStops(t *testing.T) {
	keys := golden[keyring](t, "crypto")
	w := newWired(t, nextest.Server(t), `{"admin_issuers": ["`+keys.Other.Public+`"]}`)
	w.upload(t, "echofnjs", keys.Artifact.Text)
	request := w.request(t, rawclient.Workload{Name: "echofn", Type: "v8", Key: "echofnjs", Triggers: []string{"js.echo"}}, nil)
	var sent struct {
		JWT string `json:"workload_jwt"`
	}
	if err := json.Unmarshal(request, &sent); err != nil {
		t.Fatal(err)
	}
	id, later := w.deploy(t, request), time.Now().Unix()+2
	token := func(issuer nkeys.KeyPair, name string, at int64) string {
		jwt, err := rawclient.Sign(issuer, rawclient.Claims{IssuedAt: at, Subject: name})
		if err != nil {
			t.Fatal(err)
		}
		return jwt
	}
	const invalid, other = "Invalid stop request: ", "$NEX.STOP.other."
	good := token(w.Issuer, "echofn", later)
	for name, c := range map[string]struct{ subject, id, jwt, code, text string }{
		"unknown id":      {"", "nope", good, "not_found", "No such workload"},
		"other namespace": {other, id, good, "not_found", "No such workload"},
		"no claims":       {"", id, "x", "unauthorized", invalid + "could not decode workload JWT: expected 3 chunks"},
		"deploy claims":   {"", id, sent.JWT, "unauthorized", invalid + "stop claims appear to be cloned or captured from the original start claims. Rejecting for security reasons"},
		"name":            {"", id, token(w.Issuer, "other", later), "unauthorized", invalid + "stop claims subject does not match original start claims subject"},
		"issuer":          {"", id, token(keys.Other.pair(t), "echofn", later), "unauthorized", invalid + "the only entity allowed to terminate a workload is the issuer that originally started it"},
	} {
		if c.subject == "" {
			c.subject = "$NEX.STOP.default."
		}
		body, err := json.Marshal(map[string]string{"workload_id": c.id, "workload_jwt": c.jwt, "target_node": w.node()})
		if err != nil {
			t.Fatal(err)
		}
		wantReply(t, name, w.ask(t, c.subject+w.node(), body), refusal("stop", c.code, c.text))
	}
	wantReply(t, "no JSON", w.ask(t, "$NEX.STOP.default."+w.node(), nil),
		refusal("stop", "invalid", "Unable to deserialize stop request: unexpected end of JSON input"))
	wantReply(t, "lame duck by anybody", w.ask(t, "$NEX.LAMEDUCK."+w.node(), nil), refusal("lameduck", "unauthorized",
		"Failed to enter lame duck mode: this node takes the command from its administrators alone (admin_issuers): sign it with --issuer"))
	if m, err := w.Conn.Request("js.echo", []byte("hi"), nextest.Patience); err != nil || string(m.Data) != "hi" {
		t.Errorf("it does not run any more: %v, %v", m, err)
	}
}
