package node_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/config"
	"nex/internal/nextest"
	"nex/internal/node"
)

// shelf is the bucket that nodes of these tests start from.
type shelf struct{ bucket jetstream.ObjectStore }

func newShelf(t *testing.T, nc *nats.Conn) shelf {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := js.CreateObjectStore(t.Context(), jetstream.ObjectStoreConfig{Bucket: "SHELF"})
	if err != nil {
		t.Fatal(err)
	}
	return shelf{bucket}
}

func (s shelf) put(t *testing.T, key, content string) {
	t.Helper()
	if _, err := s.bucket.PutBytes(t.Context(), key, []byte(content)); err != nil {
		t.Fatal(err)
	}
}

// starting are settings whose file has these workloads, by the reader of
// configurations.
func starting(t *testing.T, more string, workloads ...string) config.Config {
	t.Helper()
	text := `{"no_sandbox": true, ` + more + `"autostart": {"workloads": [` + strings.Join(workloads, ",") + `]}}`
	s, warnings, err := config.Parse([]byte(text), "config.json")
	if err != nil || len(warnings) > 0 {
		t.Fatal(warnings, err)
	}
	s.AgentPath, s.HandshakeTimeout = nextest.AgentPath(t), nextest.Patience
	return s
}

// failure waits until a workload did not start.
func (r *rig) failure(t *testing.T, name string) (f nex.AutostartFailed) {
	t.Helper()
	for f.Name != name {
		if err := json.Unmarshal(r.await(t, nex.AutostartFailed{}).Data(), &f); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func TestAutostart(t *testing.T) {
	srv := nextest.Server(t)
	s := newShelf(t, nextest.Connect(t, srv))
	s.put(t, "dir/env.js", `(subject, payload, ctx) => [ctx.env.GREETING, ctx.namespace, ctx.workload].join(" ")`)
	s.put(t, "svc", "#!/bin/sh\nexec sleep 1000\n")
	const listed = `"valid_issuers": ["AA5WUJ54Z23KILLCUOUNAKTPBVZWKMQVO4O6EQ5GHLAERIMLLHNCS47C"], "require_bound_claims": true, `
	r := newRigOn(t, srv, starting(t, listed,
		`{"name": "late", "type": "v8", "location": "nats://SHELF/late.js", "trigger_subjects": ["t.late"]}`,
		`{"name": "env", "namespace": "kitchen", "type": "v8", "location": "nats://SHELF/dir/env.js", "environment": {"GREETING": "hello"}, "trigger_subjects": ["t.env"], "function_timeout_ms": 20000}`,
		`{"name": "svc", "type": "native", "location": "nats://SHELF/svc", "essential": true}`,
		`{"name": "other", "type": "v8", "location": "nats://SHELF/dir/env.js", "trigger_subjects": ["t.other"]}`,
	))
	var order []string
	for len(order) < 3 { // the first is tried before them, and comes later
		var d nex.WorkloadDeployed
		if err := json.Unmarshal(r.await(t, d).Data(), &d); err != nil {
			t.Fatal(err)
		}
		order = append(order, d.Name)
	}
	if got := strings.Join(order, " "); got != "env svc other" {
		t.Errorf("started in the order %s", got)
	}
	if m := r.call(t, "t.env", nil); string(m.Data) != "hello kitchen env" {
		t.Errorf("answered %q %v", m.Data, m.Header)
	}
	info, err := r.Info(t.Context(), r.node.NodeID)
	if err != nil || !nkeys.IsValidPublicAccountKey(info.AutostartIssuer) {
		t.Fatalf("info %+v, %v", info, err)
	}
	if len(info.Waiting) != 1 || info.Waiting[0].Name != "late" || info.Waiting[0].Attempts == 0 || !strings.Contains(info.Waiting[0].Reason, "Failed to cache workload bytes") {
		t.Errorf("waiting: %+v", info.Waiting)
	}
	s.put(t, "late.js", echo) // and the next attempt finds it
	r.await(t, nex.WorkloadDeployed{})
	if m := r.call(t, "t.late", []byte("hi")); string(m.Data) != "hi" {
		t.Errorf("answered %q %v", m.Data, m.Header)
	}
	if info, err = r.Info(t.Context(), r.node.NodeID); err != nil || len(info.Waiting) > 0 || len(info.Machines) != 3 {
		t.Errorf("info %+v, %v", info, err)
	}

	// The node's own key opens nothing to others.
	w := r.upload(t, "theirs", nex.V8, []byte(echo))
	w.TriggerSubjects = []string{"t.theirs"}
	if _, err := r.deploy(t, w); nex.CodeOf(err) != nex.Unauthorized {
		t.Errorf("a stranger deploys: %v", err)
	}
}

// TestAutostartRetries: back-off, the reason each time, and no more in lame
// duck mode; the node stays up.
func TestAutostartRetries(t *testing.T) {
	srv := nextest.Server(t)
	s := newShelf(t, nextest.Connect(t, srv))
	s.put(t, "bad.js", "(s, p) => {\n  let = ;\n}")
	r := newRigOn(t, srv, starting(t, "", `{"name": "bad", "namespace": "kitchen", "type": "v8", "location": "nats://SHELF/bad.js", "trigger_subjects": ["t.bad"]}`))
	for i, delay := range []int64{1000, 2000} {
		f := r.failure(t, "bad")
		if f.Attempt != i+1 || f.RetryMS != delay || f.Code != nex.Invalid || !strings.Contains(f.Reason, "bad.js:2:") {
			t.Errorf("failure %d: %+v", i, f)
		}
	}
	if _, err := r.LameDuck(t.Context(), r.node.NodeID, nex.LameDuckRequest{}); err != nil {
		t.Fatal(err)
	}
	s.put(t, "bad.js", echo)
	client, err := nex.NewClient(r.nc, "kitchen")
	if err != nil {
		t.Fatal(err)
	}
	info, err := client.Info(t.Context(), r.node.NodeID)
	if err != nil || len(info.Waiting) != 1 || info.Waiting[0].Attempts != 2 || len(info.Machines) > 0 {
		t.Errorf("info %+v, %v", info, err)
	}
	r.end() // waits for what tries again
	for {
		select {
		case e := <-r.events:
			if e.Type() == (nex.WorkloadDeployed{}).EventType() || e.Type() == (nex.AutostartFailed{}).EventType() {
				t.Errorf("after lame duck mode: %v", e)
			}
			continue
		default:
		}
		break
	}
}

// TestAutostartIsHeldToLimits: sizes, digests and what only the node knows.
func TestAutostartIsHeldToLimits(t *testing.T) {
	srv := nextest.Server(t)
	s := newShelf(t, nextest.Connect(t, srv))
	long := echo + strings.Repeat(" ", 1000)
	s.put(t, "big.js", long)
	s.put(t, "small.js", echo)
	digestOf := func(content string) string {
		sum := sha256.Sum256([]byte(content))
		return hex.EncodeToString(sum[:])
	}
	at := func(name, key, digest string) string {
		return `{"name": "` + name + `", "type": "v8", "location": "nats://SHELF/` + key + `", "sha256": "` + digest + `", "trigger_subjects": ["t.` + name + `"]}`
	}
	r := newRigOn(t, srv, starting(t, `"node_limits": {"max_workload_bytes": 1000}, "require_digest": true, `,
		at("big", "big.js", digestOf(long)), at("wrong", "small.js", strings.Repeat("0", 64)), at("right", "small.js", digestOf(echo))))
	if f := r.failure(t, "big"); f.Code != nex.Exhausted || !strings.Contains(f.Reason, "exceed node limitations") {
		t.Errorf("too large: %+v", f)
	}
	if f := r.failure(t, "wrong"); !strings.Contains(f.Reason, "SHA-256") {
		t.Errorf("wrong digest: %+v", f)
	}
	r.await(t, nex.WorkloadDeployed{})
	if m := r.call(t, "t.right", []byte("hi")); string(m.Data) != "hi" {
		t.Errorf("answered %q %v", m.Data, m.Header)
	}
}

// TestAutostartWaitsForNATS: for NATS itself, and then for what is to be there.
func TestAutostartWaitsForNATS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	o := operate(t, node.Config{
		Settings: starting(t, "", `{"name": "echo", "type": "v8", "location": "nats://SHELF/echo.js", "trigger_subjects": ["t.echo"]}`),
		Server:   "nats://" + addr.String(),
	})
	o.line(t, "NATS not reachable, trying again")
	nc := nextest.Connect(t, nextest.ServerOn(t, addr.Port))
	o.line(t, `level=WARN msg="Autostart failed" namespace=default attempt=1 `)
	newShelf(t, nc).put(t, "echo.js", echo)
	o.line(t, `msg="Workload deployed" .*workload_name=echo`)
	if m, err := nc.Request("t.echo", []byte("hi"), nextest.Patience); err != nil || string(m.Data) != "hi" {
		t.Errorf("answered %+v, %v", m, err)
	}
	o.stop(t)
}

// TestAutostartKeepsItsKey: a workload comes back with the node, signed by the
// same key, and whoever has that may stop it.
func TestAutostartKeepsItsKey(t *testing.T) {
	srv := nextest.Server(t)
	nc := nextest.Connect(t, srv)
	newShelf(t, nc).put(t, "echo.js", echo)
	set := starting(t, "", `{"name": "echo", "type": "v8", "location": "nats://SHELF/echo.js", "trigger_subjects": ["t.echo"]}`)
	r := newRigOn(t, srv, set)
	r.await(t, nex.WorkloadDeployed{})
	first, err := r.Info(t.Context(), r.node.NodeID)
	if err != nil {
		t.Fatal(err)
	}
	r.end()
	r.node, r.end = runNode(t, srv.ClientURL(), r.dir, set)
	r.await(t, nex.WorkloadDeployed{})
	again, err := r.Info(t.Context(), r.node.NodeID)
	if err != nil || again.AutostartIssuer != first.AutostartIssuer || len(again.Machines) != 1 {
		t.Fatalf("info %+v, %v", again, err)
	}
	if r.keys.Issuer, err = issuerIn(r.dir); err != nil {
		t.Fatal(err)
	}
	if err := r.stop(t, "echo", again.Machines[0].ID); err != nil {
		t.Errorf("stop with the node's key: %v", err)
	}
	if _, err := nc.RequestWithContext(context.Background(), "t.echo", nil); err == nil {
		t.Error("what was stopped answers")
	}
}

// issuerIn reads the key that signs for a node's own workloads.
func issuerIn(dir string) (nkeys.KeyPair, error) {
	seed, err := os.ReadFile(filepath.Join(dir, "identity", "issuer.nk"))
	if err != nil {
		return nil, err
	}
	return nkeys.FromSeed(seed)
}
