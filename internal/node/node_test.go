package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/config"
	"nex/internal/machine/firecracker/fcemu"
	"nex/internal/nextest"
	"nex/internal/node"
)

func TestMain(m *testing.M) {
	if code, was := fcemu.Shim(os.Args); was {
		os.Exit(code)
	}
	if os.Getenv(serviceVariable) != "" {
		os.Exit(beService())
	}
	if os.Getenv(nodeVariable) != "" && os.Getenv("CNI_COMMAND") == "" { // what a node starts has its variables
		os.Exit(beNode())
	}
	nextest.Main(m)
}

// rig is a running node with real agents, and a client of it.
type rig struct {
	*nex.Client
	nc     *nats.Conn
	keys   nex.Keys
	node   nex.NodeInfo
	dir    string
	events chan nex.Event
	end    func()
}

// settings are those of a node without a sandbox, in tests that [TestInSandbox]
// runs with one.
func settings(t *testing.T) config.Config {
	s := config.Default()
	if strings.HasPrefix(t.Name(), "TestInSandbox/") {
		s.Sandbox, s.AgentPath, s.HandshakeTimeout = nex.SandboxOS, nextest.StaticAgent(t), nextest.Patience
		return s
	}
	s.Sandbox, s.AgentPath = nex.SandboxNone, nextest.AgentPath(t)
	s.HandshakeTimeout = nextest.Patience
	return s
}

func newRig(t *testing.T, s config.Config) *rig {
	t.Helper()
	return newRigOn(t, nextest.Server(t), s)
}

func newRigOn(t *testing.T, srv *server.Server, s config.Config) *rig {
	t.Helper()
	r := newClientRig(t, srv)
	r.node, r.end = runNode(t, srv.ClientURL(), r.dir, s)
	return r
}

// newClientRig has no node yet.
func newClientRig(t *testing.T, srv *server.Server) *rig {
	t.Helper()
	r := &rig{nc: nextest.Connect(t, srv), dir: t.TempDir(), events: make(chan nex.Event, 10_000)}
	sub, err := r.nc.Subscribe("$NEX.events.>", func(m *nats.Msg) {
		if e, err := nex.ParseEvent(m.Subject, m.Data); err == nil {
			r.events <- e
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	if r.Client, err = nex.NewClient(r.nc, ""); err != nil {
		t.Fatal(err)
	}
	r.keys.Issuer, _ = nkeys.CreateAccount()
	r.keys.Sender, _ = nkeys.CreateCurveKeys()
	return r
}

// runNode runs a node until end or the end of the test, whichever is first,
// and checks that nothing is left then.
func runNode(t *testing.T, url, dir string, s config.Config, options ...nats.Option) (info nex.NodeInfo, end func()) {
	t.Helper()
	return runConfig(t, node.Config{
		Settings: s, Nexus: "test", Version: "test", StateDir: dir, Server: url, Options: options,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
}

// runConfig is [runNode] with a configuration that lacks Ready alone.
func runConfig(t *testing.T, cfg node.Config) (info nex.NodeInfo, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done, dir := make(chan nex.NodeInfo, 1), make(chan error, 1), cfg.StateDir
	cfg.Ready = func(n nex.NodeInfo) { ready <- n }
	go func() { done <- node.Run(ctx, cfg) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := nextest.Await(t, done, "the node to end"); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(filepath.Join(dir, "machines")); len(left) > 0 {
			t.Errorf("machines left behind: %v", left)
		}
		if pids := agents(t, dir); len(pids) > 0 {
			t.Errorf("processes left behind: %v", pids)
		}
	})
	t.Cleanup(end)
	return nextest.Await(t, ready, "the node"), end
}

// agents lists the processes that work below a node's state directory, and all
// agents of this process that are in a sandbox.
func agents(t *testing.T, dir string) (pids []int) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		cwd, err := os.Readlink(link)
		process := strings.Split(link, "/")[2]
		if err == nil && (strings.HasPrefix(cwd, dir) || cwd == "/nex" && isChild(process)) {
			pid, _ := strconv.Atoi(process)
			pids = append(pids, pid)
		}
	}
	return pids
}

// isChild reports whether a process is one of this.
func isChild(pid string) bool {
	stat, _ := os.ReadFile("/proc/" + pid + "/stat") // it may have ended
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	return len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid())
}

// upload stores an artifact and returns the workload that runs it.
func (r *rig) upload(t *testing.T, name string, typ nex.WorkloadType, content []byte) nex.Workload {
	t.Helper()
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := js.CreateOrUpdateObjectStore(t.Context(), jetstream.ObjectStoreConfig{Bucket: "TEST"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.PutBytes(t.Context(), name, content); err != nil {
		t.Fatal(err)
	}
	location, err := nex.ParseLocation("nats://TEST/" + name)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	return nex.Workload{Name: name, Type: typ, Location: location, SHA256: hex.EncodeToString(sum[:]), SourceName: name + ".js"}
}

func (r *rig) target() nex.Target {
	return nex.Target{Namespace: r.Namespace(), Node: r.node.NodeID, Xkey: r.node.TargetXkey}
}

func (r *rig) deploy(t *testing.T, w nex.Workload) (nex.DeployReply, error) {
	t.Helper()
	req, err := r.keys.Deploy(w, r.target())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*nextest.Patience)
	defer cancel()
	return r.Deploy(ctx, r.node.NodeID, req)
}

// mustDeployJS deploys a script on one subject.
func (r *rig) mustDeployJS(t *testing.T, name, subject, script string) string {
	t.Helper()
	w := r.upload(t, name, nex.V8, []byte(script))
	w.TriggerSubjects = []string{subject}
	reply, err := r.deploy(t, w)
	if err != nil {
		t.Fatal(err)
	}
	return reply.ID
}

func (r *rig) stop(t *testing.T, name, id string) error {
	t.Helper()
	req, err := r.keys.Stop(name, id, r.target())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), nextest.Patience)
	defer cancel()
	_, err = r.Stop(ctx, r.node.NodeID, req)
	return err
}

func (r *rig) call(t *testing.T, subject string, payload []byte) *nats.Msg {
	t.Helper()
	m, err := r.nc.Request(subject, payload, nextest.Patience)
	if err != nil {
		t.Fatalf("call %s: %v", subject, err)
	}
	return m
}

// await waits for an event of the same type as want.
func (r *rig) await(t *testing.T, want nex.EventData) nex.Event {
	t.Helper()
	deadline := time.After(nextest.Patience)
	for {
		select {
		case e := <-r.events:
			if e.Type() == want.EventType() {
				return e
			}
		case <-deadline:
			t.Fatalf("waited in vain for %s", want.EventType())
		}
	}
}

const echo = "(subject, payload) => payload"

func TestJavaScriptEcho(t *testing.T) {
	r := newRig(t, settings(t))
	id := r.mustDeployJS(t, "echo", "js.echo", echo)
	payload := make([]byte, 64<<10)
	rand.Read(payload)
	for _, p := range [][]byte{[]byte("heya"), nil, payload} {
		if m := r.call(t, "js.echo", p); !bytes.Equal(m.Data, p) {
			t.Errorf("%d bytes came back as %d", len(p), len(m.Data))
		}
	}
	info, err := r.Info(t.Context(), r.node.NodeID)
	if err != nil || len(info.Machines) != 1 || info.Machines[0].ID != id || !info.Machines[0].Healthy || info.Memory.Total == 0 {
		t.Errorf("info %+v, %v", info, err)
	}
	if err := r.stop(t, "echo", id); err != nil {
		t.Fatal(err)
	}
	if _, err := r.nc.Request("js.echo", nil, nextest.Patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("after stop: %v", err)
	}
	r.await(t, nex.WorkloadDeployed{})
	r.await(t, nex.FunctionSucceeded{})
	r.await(t, nex.WorkloadUndeployed{})
	r.end()
	r.await(t, nex.NodeStopped{})
}

// TestFirstTriggerIsAnswered deploys and triggers at once, many times.
func TestFirstTriggerIsAnswered(t *testing.T) {
	r := newRig(t, settings(t))
	for i := range 200 {
		subject := fmt.Sprintf("first.%d", i)
		r.mustDeployJS(t, fmt.Sprintf("f%d", i), subject, echo)
		if m := r.call(t, subject, []byte(subject)); string(m.Data) != subject {
			t.Fatalf("deploy %d: %q", i, m.Data)
		}
	}
}

func TestRunawayIsStoppedAndTheNextCallWorks(t *testing.T) {
	s := settings(t)
	s.Defaults.FunctionTimeoutMS = 300
	r := newRig(t, s)
	r.mustDeployJS(t, "loop", "js.loop", `(s, p) => { if (p.length) while (true) {}; return "fine" }`)
	for range 3 {
		if m := r.call(t, "js.loop", []byte("x")); m.Header.Get("Nats-Service-Error-Code") != "504" {
			t.Errorf("runaway answered %q %v", m.Data, m.Header)
		}
		if m := r.call(t, "js.loop", nil); string(m.Data) != "fine" {
			t.Errorf("the next call answered %q %v", m.Data, m.Header)
		}
	}
}

func TestKilledAgentIsReplaced(t *testing.T) {
	r := newRig(t, settings(t))
	r.mustDeployJS(t, "echo", "js.echo", echo)
	r.call(t, "js.echo", nil)
	old := agents(t, r.dir)
	for _, pid := range old {
		p, err := os.FindProcess(pid)
		if err == nil {
			err = p.Kill()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	r.await(t, nex.WorkloadRestarting{})
	if m := r.call(t, "js.echo", []byte("again")); string(m.Data) != "again" {
		t.Errorf("after recovery: %q %v", m.Data, m.Header)
	}
	now := agents(t, r.dir)
	for _, pid := range old {
		for _, p := range now {
			if pid == p {
				t.Errorf("process %d of the old agent is left", pid)
			}
		}
	}
}

func TestServiceRunsLogsAndStops(t *testing.T) {
	r := newRig(t, settings(t))
	logs := make(chan nex.Log, 100)
	sub, err := r.nc.Subscribe("$NEX.logs.>", func(m *nats.Msg) {
		if l, err := nex.ParseLog(m.Subject, m.Data); err == nil {
			logs <- l
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	w := r.upload(t, "svc", nex.Native, []byte("#!/bin/sh\necho \"hello $1 $NAME\"\necho oops >&2\nsleep 1000\n"))
	w.Argv, w.Environment = []string{"arg"}, map[string]string{"name": "value"}
	reply, err := r.deploy(t, w)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l := nextest.Await(t, logs, "a log record")
		if l.Workload != "svc" || l.ID != reply.ID || l.Namespace != "default" ||
			!(l.Text == "hello arg value" && l.Level == slog.LevelInfo || l.Text == "oops" && l.Level == slog.LevelError) {
			t.Errorf("log %+v", l)
		}
	}
	if err := r.stop(t, "svc", reply.ID); err != nil {
		t.Fatal(err)
	}
	r.await(t, nex.WorkloadUndeployed{})
}

func TestRefusals(t *testing.T) {
	s := settings(t)
	s.Limits.MaxWorkloadBytes = 1000
	s.DenyTriggerSubjects = append(s.DenyTriggerSubjects, "secret.>")
	r := newRig(t, s)
	good := r.upload(t, "echo", nex.V8, []byte(echo))
	good.TriggerSubjects = []string{"js.echo"}
	for name, tc := range map[string]struct {
		change func(*nex.Workload)
		spoil  func(*nex.DeployRequest)
		want   string
	}{
		"type":            {change: func(w *nex.Workload) { w.Type = "oci" }, want: "Unsupported workload type on this node: oci"},
		"denied trigger":  {change: func(w *nex.Workload) { w.TriggerSubjects = []string{"secret.x"} }, want: "The trigger subject secret.x overlaps with subject(s) in this node's deny list"},
		"system trigger":  {change: func(w *nex.Workload) { w.TriggerSubjects = []string{">"} }, want: "The trigger subject > overlaps with subject(s) in this node's deny list"},
		"essential":       {change: func(w *nex.Workload) { w.Essential = true }, want: "essential flag is not supported for workload type"},
		"bad trigger":     {change: func(w *nex.Workload) { w.TriggerSubjects = []string{"a..b"} }, want: `trigger subject "a..b" has an empty token`},
		"no trigger":      {change: func(w *nex.Workload) { w.TriggerSubjects = nil }, want: "at least one trigger subject is required"},
		"service trigger": {change: func(w *nex.Workload) { w.Type = nex.Native }, want: "Unsupported workload type for trigger subject registration: native"},
		"missing object":  {change: func(w *nex.Workload) { w.Location.Path = "/nothing" }, want: "Failed to cache workload bytes: nats: object not found"},
		"missing bucket":  {change: func(w *nex.Workload) { w.Location.Host = "NOTHING" }, want: "Failed to cache workload bytes: nats: stream not found"},
		"wrong digest":    {change: func(w *nex.Workload) { w.SHA256 = strings.Repeat("0", 64) }, want: "but the claim says"},
		"no environment":  {spoil: func(d *nex.DeployRequest) { d.Environment = "" }, want: "Failed to decrypt environment for deploy request"},
		"no sender":       {spoil: func(d *nex.DeployRequest) { d.SenderPublicKey = "" }, want: "Failed to decrypt environment for deploy request"},
		"no claims":       {spoil: func(d *nex.DeployRequest) { d.WorkloadJWT = "" }, want: "Invalid deploy request: could not decode workload JWT: expected 3 chunks"},
		"no location":     {spoil: func(d *nex.DeployRequest) { d.Location = nex.Location{} }, want: "location must be nats://BUCKET/key"},
		"timeout":         {spoil: func(d *nex.DeployRequest) { d.FunctionTimeoutMS = -1 }, want: "function_timeout_ms cannot be -1"},
	} {
		w := good
		if tc.change != nil {
			tc.change(&w)
		}
		req, err := r.keys.Deploy(w, r.target())
		if err != nil {
			t.Fatal(err)
		}
		if tc.spoil != nil {
			req = r.oldRequest(t, w, w.SHA256) // whose claims say nothing of the rest
			tc.spoil(&req)
		}
		if _, err := r.Deploy(t.Context(), r.node.NodeID, req); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	for name, tc := range map[string]struct {
		typ     nex.WorkloadType
		content string
		want    string
	}{
		"too large":     {nex.V8, "() => 1 //" + strings.Repeat("x", 1000), "Workload file size would exceed node limitations"},
		"syntax error":  {nex.V8, "(s, p) => {\n  let = ;\n}", "bad.js:2:"},
		"no function":   {nex.V8, "42", "must be a function"},
		"no module":     {nex.Wasm, "not wasm", "bad.js"},
		"no executable": {nex.Native, "\x00\x01\x02", "Failed to deploy workload"},
	} {
		w := r.upload(t, "bad", tc.typ, []byte(tc.content))
		if tc.typ.IsFunction() {
			w.TriggerSubjects = []string{"js.bad"}
		}
		if _, err := r.deploy(t, w); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	if info, err := r.Info(t.Context(), r.node.NodeID); err != nil || len(info.Machines) > 0 {
		t.Errorf("something runs: %+v, %v", info.Machines, err)
	}
}

func TestLameDuck(t *testing.T) {
	r := newRig(t, settings(t))
	r.mustDeployJS(t, "echo", "js.echo", echo)
	for range 2 {
		if _, err := r.LameDuck(t.Context(), r.node.NodeID, nex.LameDuckRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	w := r.upload(t, "late", nex.V8, []byte(echo))
	w.TriggerSubjects = []string{"js.late"}
	if _, err := r.deploy(t, w); nex.CodeOf(err) != nex.LameDuck || err.Error() != "Node is in lame duck mode. Workload deploy request denied" {
		t.Errorf("deploy: %v", err)
	}
	for n, err := range r.Auction(t.Context(), nex.AuctionRequest{}) {
		t.Errorf("a lame duck bids: %+v, %v", n, err)
	}
	if m := r.call(t, "js.echo", []byte("hi")); string(m.Data) != "hi" {
		t.Errorf("what runs goes on: %q", m.Data)
	}
}

func TestIdentityIsKeptAndTheDirectoryIsLocked(t *testing.T) {
	srv := nextest.Server(t)
	r := newRigOn(t, srv, settings(t))
	err := node.Run(t.Context(), node.Config{
		Settings: settings(t), StateDir: r.dir, Server: srv.ClientURL(), Log: slog.New(slog.DiscardHandler),
	})
	if err == nil || !strings.Contains(err.Error(), "in use by another node") {
		t.Errorf("a second node: %v", err)
	}
	r.end()
	again, _ := runNode(t, srv.ClientURL(), r.dir, settings(t))
	if again.NodeID != r.node.NodeID || again.TargetXkey != r.node.TargetXkey {
		t.Errorf("identity %s, %s became %s, %s", r.node.NodeID, r.node.TargetXkey, again.NodeID, again.TargetXkey)
	}
}

func TestNodeWaitsForNATS(t *testing.T) {
	srv := nextest.Server(t)
	url := srv.ClientURL()
	port := srv.Addr().(*net.TCPAddr).Port
	srv.Shutdown()
	srv.WaitForShutdown()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan nex.NodeInfo, 1), make(chan error, 1)
	go func() {
		done <- node.Run(ctx, node.Config{
			Settings: settings(t), StateDir: t.TempDir(), Server: url, Log: slog.New(slog.DiscardHandler),
			Ready: func(n nex.NodeInfo) { ready <- n },
		})
	}()
	select {
	case <-ready:
		t.Error("ready without NATS")
	case err := <-done:
		t.Fatalf("gave up: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	nextest.ServerOn(t, port)
	nextest.Await(t, ready, "the node")
	cancel()
	if err := nextest.Await(t, done, "the node's end"); err != nil {
		t.Error(err)
	}
}

func TestUnavailableSandboxIsSaid(t *testing.T) {
	s := settings(t)
	s.Sandbox = nex.SandboxMicroVM
	err := node.Run(t.Context(), node.Config{Settings: s, StateDir: t.TempDir(), Server: "nats://127.0.0.1:1", Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "no_sandbox") {
		t.Errorf("got %v", err)
	}
}

// TestWasmEcho runs the example that is written in Rust.
func TestWasmEcho(t *testing.T) {
	module, err := os.ReadFile("../../examples/wasm/echofunction/echofunction.wasm")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, settings(t))
	w := r.upload(t, "echofunctionwasm", nex.Wasm, module)
	w.TriggerSubjects = []string{"wasm.*"}
	if _, err := r.deploy(t, w); err != nil {
		t.Fatal(err)
	}
	for _, payload := range []string{"hello", "", strings.Repeat("\x00\xff", 20_000)} {
		if m := r.call(t, "wasm.echo", []byte(payload)); string(m.Data) != payload+"wasm.echo" {
			t.Errorf("%d bytes came back as %d, %v", len(payload), len(m.Data), m.Header)
		}
	}
}

// TestLargeHeadersAndEnvironments are longer than one frame of the guest link.
func TestLargeHeadersAndEnvironments(t *testing.T) {
	r := newRig(t, settings(t))
	long := strings.Repeat("x", 300_000)
	w := r.upload(t, "f", nex.V8, []byte(`(s, p, ctx) => [ctx.headers.A[0].length, ctx.env.A.length]`))
	w.TriggerSubjects, w.Environment = []string{"js.f"}, map[string]string{"A": long}
	if _, err := r.deploy(t, w); err != nil {
		t.Fatal(err)
	}
	m := nats.NewMsg("js.f")
	m.Header.Set("A", long)
	reply, err := r.nc.RequestMsg(m, nextest.Patience)
	if err != nil || string(reply.Data) != "[300000,300000]" {
		t.Errorf("got %v, %v", reply, err)
	}
}

// TestReadyMeansReady asks a node the moment it says so.
func TestReadyMeansReady(t *testing.T) {
	srv := nextest.Server(t)
	nc := nextest.Connect(t, srv)
	c, err := nex.NewClient(nc, "")
	if err != nil {
		t.Fatal(err)
	}
	s := settings(t)
	s.PoolSize = 0
	for range 30 {
		info, end := runNode(t, srv.ClientURL(), t.TempDir(), s)
		if _, err := c.Info(t.Context(), info.NodeID); err != nil {
			t.Errorf("not yet: %v", err)
		}
		end()
	}
}

func TestServiceOfAnyName(t *testing.T) {
	r := newRig(t, settings(t))
	for _, name := range []string{"home", "bin", "artifact", "-", "tmp"} {
		reply, err := r.deploy(t, r.upload(t, name, nex.Native, []byte("#!/bin/sh\nsleep 1000\n")))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := r.stop(t, name, reply.ID); err != nil {
			t.Error(err)
		}
	}
}

// TestNodeComesBackAfterWrongCredentials changes the server's password and
// back while the node is connected.
func TestNodeComesBackAfterWrongCredentials(t *testing.T) {
	options := func(password string) *server.Options {
		return &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, Username: "u", Password: password, NoLog: true, NoSigs: true}
	}
	srv, err := server.NewServer(options("p"))
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(nextest.Patience) {
		t.Fatal("NATS server did not start")
	}
	port := srv.Addr().(*net.TCPAddr).Port
	url := fmt.Sprintf("nats://u:p@127.0.0.1:%d", port)
	refused := make(chan struct{}, 100)
	s := settings(t)
	s.PoolSize = 0
	log := slog.New(slog.NewTextHandler(writerFunc(func(p []byte) {
		if bytes.Contains(p, []byte("uthorization")) {
			refused <- struct{}{}
		}
	}), nil))
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan nex.NodeInfo, 1), make(chan error, 1)
	go func() {
		done <- node.Run(ctx, node.Config{Settings: s, StateDir: t.TempDir(), Server: url, Log: log, Ready: func(n nex.NodeInfo) { ready <- n }})
	}()
	nextest.Await(t, ready, "the node")
	reload := func(password string) {
		o := options(password)
		o.Port = port
		if err := srv.ReloadOptions(o); err != nil {
			t.Fatal(err)
		}
	}
	reload("q")
	for range 3 { // twice is when the client library would give up
		nextest.Await(t, refused, "a refused attempt")
	}
	reload("p")
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c, err := nex.NewClient(nc, "")
	if err != nil {
		t.Fatal(err)
	}
	deadline, stop := context.WithTimeout(t.Context(), nextest.Patience)
	defer stop()
	found := 0
	for found == 0 && deadline.Err() == nil {
		for range c.Nodes(deadline, nex.NodeFilter{}) {
			found++
		}
	}
	if found == 0 {
		t.Error("the node never came back")
	}
	cancel()
	if err := nextest.Await(t, done, "the node's end"); err != nil {
		t.Error(err)
	}
}

// writerFunc is a writer that never fails.
type writerFunc func(p []byte)

func (w writerFunc) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

// TestTriggerTheServerRefuses deploys on a subject that the node's user may
// not subscribe to.
func TestTriggerTheServerRefuses(t *testing.T) {
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
		Users: []*server.User{
			{Username: "node", Password: "p", Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"secret.>"}}}},
			{Username: "dev", Password: "p"},
		},
		NoAuthUser: "dev",
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(nextest.Patience) {
		t.Fatal("NATS server did not start")
	}
	r := &rig{nc: nextest.Connect(t, srv), dir: t.TempDir()}
	if r.Client, err = nex.NewClient(r.nc, ""); err != nil {
		t.Fatal(err)
	}
	r.keys.Issuer, _ = nkeys.CreateAccount()
	r.keys.Sender, _ = nkeys.CreateCurveKeys()
	r.node, r.end = runNode(t, strings.Replace(srv.ClientURL(), "nats://", "nats://node:p@", 1), r.dir, settings(t))
	w := r.upload(t, "echo", nex.V8, []byte(echo))
	w.TriggerSubjects = []string{"secret.x"}
	if _, err := r.deploy(t, w); nex.CodeOf(err) != nex.Denied {
		t.Errorf("got %v", err)
	}
	w.TriggerSubjects = []string{"open.x"}
	if _, err := r.deploy(t, w); err != nil {
		t.Fatal(err)
	}
	if m := r.call(t, "open.x", []byte("hi")); string(m.Data) != "hi" {
		t.Errorf("got %q", m.Data)
	}
}

func TestRedactURLs(t *testing.T) {
	for in, want := range map[string]string{
		"nats://127.0.0.1:4222":              "nats://127.0.0.1:4222",
		"nats://u:secret@a:1,nats://token@b": "nats://u:xxxxx@a:1,nats://xxxxx@b",
		"nats://u:se%cret@a":                 "(not a URL)",
	} {
		if got := node.RedactURLs(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
