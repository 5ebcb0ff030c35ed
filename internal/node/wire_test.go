package node_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/config"
	"nex/internal/nextest"
	"nex/internal/rawclient"
)

// golden reads a file of testdata/wire.
func golden[T any](t *testing.T, name string) (v T) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "wire", name+".json"))
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

// keyring is crypto.json: keys for tests, and what was made with them.
type keyring struct {
	Issuer   goldenKey
	Other    goldenKey `json:"other_issuer"`
	Node     goldenKey
	NodeX    goldenKey `json:"node_x"`
	SenderX  goldenKey `json:"sender_x"`
	Artifact struct{ Text string }
	JWT      map[string]string
}

type goldenKey struct{ Public, Seed string }

func (k goldenKey) pair(t *testing.T) nkeys.KeyPair {
	t.Helper()
	open := nkeys.FromSeed
	if k.Public[0] == 'X' {
		open = nkeys.FromCurveSeed
	}
	pair, err := open([]byte(k.Seed))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// bucket is where golden requests have their artifacts.
const bucket = "NEXCLIFILES"

// wired is a running node with the golden identity, and a client of it that
// knows nothing but the wire.
type wired struct {
	rawclient.Client
	keys  keyring
	store jetstream.ObjectStore
	told  chan *nats.Msg // all events and logs
	dir   string
	end   func()
}

// newWired runs a node with a configuration file's text.
func newWired(t *testing.T, srv *server.Server, file string) *wired {
	t.Helper()
	s, _, err := config.Parse([]byte(file), "case")
	if err != nil {
		t.Fatal(err)
	}
	mine := settings(t)
	s.Sandbox, s.AgentPath, s.HandshakeTimeout = mine.Sandbox, mine.AgentPath, mine.HandshakeTimeout
	s.PoolSize = 0 // most requests here are refused
	return newWiredWith(t, srv, s)
}

func newWiredWith(t *testing.T, srv *server.Server, s config.Config) *wired {
	t.Helper()
	w := &wired{keys: golden[keyring](t, "crypto"), told: make(chan *nats.Msg, 1000), dir: t.TempDir()}
	identity := filepath.Join(w.dir, "identity")
	if err := os.Mkdir(identity, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]goldenKey{"node.nk": w.keys.Node, "node.xk": w.keys.NodeX} {
		if err := os.WriteFile(filepath.Join(identity, name), []byte(key.Seed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.Client = rawclient.Client{
		Conn: nextest.Connect(t, srv), Namespace: "default", Wait: nextest.Patience,
		Issuer: w.keys.Issuer.pair(t), Sender: w.keys.SenderX.pair(t),
	}
	for _, subject := range []string{"$NEX.events.>", "$NEX.logs.>"} {
		if _, err := w.Conn.ChanSubscribe(subject, w.told); err != nil {
			t.Fatal(err)
		}
	}
	js, err := jetstream.New(w.Conn)
	if err == nil {
		w.store, err = js.CreateOrUpdateObjectStore(t.Context(), jetstream.ObjectStoreConfig{Bucket: bucket})
	}
	if err != nil {
		t.Fatal(err)
	}
	var info nex.NodeInfo
	info, w.end = runNode(t, srv.ClientURL(), w.dir, s)
	if info.NodeID != w.keys.Node.Public || info.TargetXkey != w.keys.NodeX.Public {
		t.Fatalf("the node is %s, %s", info.NodeID, info.TargetXkey)
	}
	return w
}

func (w *wired) node() string { return w.keys.Node.Public }

// Artifacts of each type.
const (
	forever = "#!/bin/sh\nexec sleep 1000\n"
	// tinyWasm is a module whose _start returns at once.
	tinyWasm = "\x00asm\x01\x00\x00\x00" + "\x01\x04\x01\x60\x00\x00" + "\x03\x02\x01\x00" +
		"\x07\x0a\x01\x06_start\x00\x00" + "\x0a\x04\x01\x02\x00\x0b"
)

func (w *wired) upload(t *testing.T, key, content string) {
	t.Helper()
	if _, err := w.store.PutString(t.Context(), key, content); err != nil {
		t.Fatal(err)
	}
}

// request makes a deploy request, spoilt in one way if spoil is not nil.
func (w *wired) request(t *testing.T, workload rawclient.Workload, spoil func(map[string]any)) []byte {
	t.Helper()
	workload.Bucket = bucket
	r, err := w.DeployRequest(w.node(), w.keys.NodeX.Public, workload)
	if err != nil {
		t.Fatal(err)
	}
	if spoil != nil {
		spoil(r)
	}
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (w *wired) ask(t *testing.T, subject string, body []byte) []byte {
	t.Helper()
	reply, err := w.Ask(subject, body)
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// deploy returns the id of a workload that must run.
func (w *wired) deploy(t *testing.T, body []byte) string {
	t.Helper()
	reply := w.ask(t, "$NEX.DEPLOY.default."+w.node(), body)
	var e struct {
		Data struct{ ID string }
	}
	if err := json.Unmarshal(reply, &e); err != nil || !workloadID.MatchString(e.Data.ID) {
		t.Fatalf("deploy: %s", reply)
	}
	return e.Data.ID
}

func wantReply(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if string(got) != want {
		t.Errorf("%s:\ngot  %s\nwant %s", what, got, want)
	}
}

// refusal is the complete reply of a node that refuses: the text is that of
// Nex 0.2.7, the code ours.
func refusal(verb, code, text string) string {
	quoted, _ := json.Marshal(text) // a string
	return fmt.Sprintf(`{"type":"io.nats.nex.v1.%s_response","data":"","error":%s,"code":%q}`, verb, quoted, code)
}

// TestWireFromItsDescriptionAlone has a client that shares no code with the
// node do everything once.
func TestWireFromItsDescriptionAlone(t *testing.T) {
	w := newWired(t, nextest.Server(t), "{}")
	id := w.node()
	for _, c := range []struct {
		workload rawclient.Workload
		content  string
		payload  string
		reply    string
	}{
		{rawclient.Workload{Name: "echofn", Type: "v8", Triggers: []string{"js.*"}, Environment: map[string]string{"WHO": "me"}},
			`(subject, payload, ctx) => subject + " " + String.fromCharCode(...payload) + " " + ctx.env.WHO`, "heya", "js.echo heya me"},
		{rawclient.Workload{Name: "tiny", Type: "wasm", Triggers: []string{"wasm.echo"}}, tinyWasm, "heya", ""},
		{rawclient.Workload{Name: "svc", Type: "native", Argv: []string{"--port", "8080"}, Essential: true}, forever, "", ""},
	} {
		t.Run(c.workload.Type, func(t *testing.T) {
			name, typ := c.workload.Name, c.workload.Type
			w.upload(t, name, c.content)
			c.workload.Key, c.workload.Description = name, "told by hand"
			workload := w.deploy(t, w.request(t, c.workload, nil))
			if len(c.workload.Triggers) > 0 {
				m, err := w.Conn.Request(map[string]string{"v8": "js.echo", "wasm": "wasm.echo"}[typ], []byte(c.payload), nextest.Patience)
				if err != nil || string(m.Data) != c.reply || len(m.Header) > 0 {
					t.Errorf("call: %q %v, %v", m.Data, m.Header, err)
				}
			}
			w.lists(t, name, typ, workload)
			stopped, err := w.Stop(id, workload, name, time.Now().Add(time.Second)) // as late as Nex 0.2.7 wants it
			if err != nil {
				t.Fatal(err)
			}
			wantReply(t, "stop", stopped, fmt.Sprintf(`{"type":"io.nats.nex.v1.stop_response","data":{"stopped":true,"id":%q,"issuer":%q,"name":%q}}`,
				workload, w.keys.Issuer.Public, name))
			if _, err := w.Conn.Request("js.echo", nil, nextest.Patience); err != nats.ErrNoResponders {
				t.Errorf("after its end: %v", err)
			}
		})
	}
	for range 2 {
		reply, err := w.LameDuck(id)
		if err != nil {
			t.Fatal(err)
		}
		wantReply(t, "lame duck", reply, fmt.Sprintf(`{"type":"io.nats.nex.v1.lameduck_response","data":{"node_id":%q,"success":true}}`, id))
	}
}

// lists checks all that tells of workloads while one runs.
func (w *wired) lists(t *testing.T, name, typ, id string) {
	t.Helper()
	type answer struct {
		Type string
		Data struct {
			NodeID  string `json:"node_id"`
			Running any    `json:"running_machines"`
			Xkey    string `json:"target_xkey"`
			Public  string `json:"public_xkey"`
			Memory  struct{ Total, Free, Available int }
			// of INFO
			Machines []struct {
				ID, Namespace string
				Healthy       bool
				Workload      struct{ Name, Description, Type, Hash string }
			}
		}
	}
	ask := func(reply []byte, err error) (a answer) {
		if err == nil {
			err = json.Unmarshal(reply, &a)
		}
		if err != nil {
			t.Fatalf("%s: %v", reply, err)
		}
		return a
	}
	for what, a := range map[string]answer{
		"ping": ask(w.Ping()), "node ping": ask(w.PingNode(w.node())), "auction": ask(w.Auction(map[string]any{"workload_types": []string{typ}})),
	} {
		if a.Data.NodeID != w.node() || a.Data.Xkey != w.keys.NodeX.Public || a.Data.Running != 1.0 {
			t.Errorf("%s: %+v", what, a)
		}
	}
	for _, which := range []string{"", id, name} {
		a := ask(w.WorkloadPing(which))
		want := fmt.Sprint([]any{map[string]any{"id": id, "namespace": "default", "name": name, "type": typ}})
		if a.Type != "io.nats.nex.v1.ping_response" || fmt.Sprint(a.Data.Running) != want {
			t.Errorf("workload ping %q: %+v", which, a)
		}
	}
	a := ask(w.Info(w.node()))
	if len(a.Data.Machines) != 1 || a.Data.Public != w.keys.NodeX.Public || a.Data.Memory.Total == 0 {
		t.Fatalf("info: %+v", a)
	}
	if m := a.Data.Machines[0]; m.ID != id || m.Namespace != "default" || !m.Healthy || m.Workload.Name != name ||
		m.Workload.Type != typ || m.Workload.Description != "told by hand" || len(m.Workload.Hash) != 64 {
		t.Errorf("info: %+v", m)
	}
}

// seal is an environment that is not one.
func (w *wired) seal(t *testing.T, plain, xkey string) string {
	t.Helper()
	box, err := w.Sender.Seal([]byte(plain), xkey)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(box)
}
