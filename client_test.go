package nex_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/nextest"
)

// soon bounds what must not wait for the deadline of a minute that the tests
// give: generous, for a busy machine.
const soon = 30 * time.Second

func newClient(t *testing.T, nc *nats.Conn, namespace string) *nex.Client {
	t.Helper()
	c, err := nex.NewClient(nc, namespace)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// connect returns a client of the namespace ns and its connection.
func connect(t *testing.T) (*nex.Client, *nats.Conn) {
	t.Helper()
	nc := nextest.Connect(t, nextest.Server(t))
	return newClient(t, nc, "ns"), nc
}

// responder stands in for the nodes that hear a subject.
type responder struct {
	requests chan *nats.Msg // what was asked
	stop     func()
}

// respond answers every message on subject with all replies.
func respond(t *testing.T, nc *nats.Conn, subject string, replies ...string) responder {
	t.Helper()
	r := responder{requests: make(chan *nats.Msg, 100)}
	sub, err := nc.Subscribe(subject, func(m *nats.Msg) {
		r.requests <- m
		for _, reply := range replies {
			if err := m.Respond([]byte(reply)); err != nil {
				t.Errorf("respond on %s: %v", subject, err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	r.stop = func() { _ = sub.Unsubscribe() }
	return r
}

func minute(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestNewClient(t *testing.T) {
	_, nc := connect(t)
	if c := newClient(t, nc, ""); c.Namespace() != "default" {
		t.Errorf("namespace %q", c.Namespace())
	}
	for _, ns := range []string{"a.b", "*", ">", "a b", "a\n"} {
		if _, err := nex.NewClient(nc, ns); nex.CodeOf(err) != nex.Invalid {
			t.Errorf("%q: %v", ns, err)
		}
	}
}

func TestRequestsAndReplies(t *testing.T) {
	c, nc := connect(t)
	ctx := minute(t)
	for _, r := range []struct {
		subject, reply string
		body           any
		ask            func() (any, error)
		want           any
	}{
		{
			"$NEX.DEPLOY.ns.N1", `{"type":"io.nats.nex.v1.run_response","data":{"started":true,"id":"w1","issuer":"A1","name":"echofn"}}`,
			nex.DeployRequest{Type: nex.V8, WorkloadJWT: "jwt"},
			func() (any, error) {
				return c.Deploy(ctx, "N1", nex.DeployRequest{Type: nex.V8, WorkloadJWT: "jwt"})
			},
			nex.DeployReply{Started: true, ID: "w1", Issuer: "A1", Name: "echofn"},
		},
		{
			"$NEX.STOP.ns.N1", `{"type":"io.nats.nex.v1.stop_response","data":{"stopped":true,"id":"w1","issuer":"A1","name":"echofn"},"extra":1}`,
			nex.StopRequest{WorkloadID: "w1"},
			func() (any, error) { return c.Stop(ctx, "N1", nex.StopRequest{WorkloadID: "w1"}) },
			nex.StopReply{Stopped: true, ID: "w1", Issuer: "A1", Name: "echofn"},
		},
		{
			"$NEX.LAMEDUCK.N1", `{"type":"io.nats.nex.v1.lameduck_response","data":{"node_id":"N1","success":true}}`,
			nil, func() (any, error) { return c.LameDuck(ctx, "N1", nex.LameDuckRequest{}) }, nex.LameDuckReply{NodeID: "N1", Success: true},
		},
	} {
		node := respond(t, nc, r.subject, r.reply)
		got, err := r.ask()
		if err != nil || got != r.want {
			t.Errorf("%s: got %+v, %v", r.subject, got, err)
		}
		m := nextest.Await(t, node.requests, "the request on "+r.subject)
		if r.body == nil && len(m.Data) != 0 || r.body != nil && !bytes.Equal(m.Data, marshal(t, r.body)) {
			t.Errorf("%s: sent %s", r.subject, m.Data)
		}
	}
}

func TestInfoOfVector(t *testing.T) {
	c, nc := connect(t)
	e := vector[[]exchange](t, "control_info_lameduck")[0]
	respond(t, nc, "$NEX.INFO.ns.N1", string(e.Reply))
	info, err := c.Info(minute(t), "N1")
	if err != nil || info.Uptime != "1m7s" || len(info.Machines) != 1 || info.Machines[0].Workload.Runtime != "46ms" || info.Memory.Free != 8192000 {
		t.Errorf("got %+v, %v", info, err)
	}
}

func TestFailures(t *testing.T) {
	c, nc := connect(t)
	for _, f := range []struct {
		reply, text string
		code        nex.Code
	}{
		{`{"type":"x","data":"","error":"No such workload"}`, "No such workload", nex.NotFound},
		{`{"type":"x","data":"","error":"No such workload","code":"not_found"}`, "No such workload", nex.NotFound},
		{`{"type":"x","error":"later","code":"of tomorrow"}`, "later", "of tomorrow"},
		{`{"type":"x","data":{"started":true},"error":"both"}`, "both", nex.Internal},
	} {
		node := respond(t, nc, "$NEX.*.ns.N1", f.reply)
		for what, ask := range requests(minute(t), c, "N1") {
			err := ask()
			var e *nex.Error
			if !errors.As(err, &e) || err.Error() != f.text || nex.CodeOf(err) != f.code {
				t.Errorf("%s: %s gave %v with code %s", what, f.reply, err, nex.CodeOf(err))
			}
		}
		node.stop()
	}
}

// requests are the calls with one reply that have a namespace.
func requests(ctx context.Context, c *nex.Client, node string) map[string]func() error {
	return map[string]func() error{
		"deploy": func() error { _, err := c.Deploy(ctx, node, nex.DeployRequest{}); return err },
		"stop":   func() error { _, err := c.Stop(ctx, node, nex.StopRequest{}); return err },
		"info":   func() error { _, err := c.Info(ctx, node); return err },
	}
}

func TestGarbageReplies(t *testing.T) {
	c, nc := connect(t)
	for _, reply := range []string{
		"", "garbage", "null", "[]", "5", "{}", `{"type":"x"}`, `{"data":5}`, `{"data":"text"}`, `{"data":[]}`,
		`{"data":{"id":5,"version":5}}`, `{"error":5}`, `{"error":{}}`, "{\xff}", strings.Repeat("[", 100_000),
	} {
		node := respond(t, nc, "$NEX.*.ns.N1", reply)
		for what, ask := range requests(minute(t), c, "N1") {
			if err := ask(); nex.CodeOf(err) != nex.Internal {
				t.Errorf("%s: %.40q gave %v", what, reply, err)
			}
		}
		node.stop()
	}
}

func TestNoSuchNodeIsKnownAtOnce(t *testing.T) {
	c, _ := connect(t)
	start := time.Now()
	for what, ask := range requests(minute(t), c, "N1") {
		if err := ask(); nex.CodeOf(err) != nex.NoSuchNode || !strings.Contains(err.Error(), "N1") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if took := time.Since(start); took > soon {
		t.Errorf("took %v", took)
	}
}

func TestSilentNodeTimesOut(t *testing.T) {
	c, nc := connect(t)
	if _, err := nc.SubscribeSync(">"); err != nil {
		t.Fatal(err)
	}
	for what := range requests(t.Context(), c, "N1") {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := requests(ctx, c, "N1")[what](); nex.CodeOf(err) != nex.Timeout {
			t.Errorf("%s: %v", what, err)
		}
		cancel()
		if err := requests(ctx, c, "N1")[what](); err == nil {
			t.Errorf("%s: answered after its context ended", what)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Info(cancelled, "N1"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestHostileNames: what is no token reaches nobody and breaks nothing.
func TestHostileNames(t *testing.T) {
	c, nc := connect(t)
	for _, node := range []string{"", "a b", "a\r\nPUB x 0\r\n", "\t"} {
		for what, ask := range requests(minute(t), c, node) {
			if err := ask(); err == nil {
				t.Errorf("%s: node %q answered", what, node)
			}
		}
		for _, err := range c.Events(minute(t), node+" ", "*") {
			if err == nil {
				t.Errorf("events of %q", node)
			}
		}
		for _, err := range c.Workloads(minute(t), node+" ") {
			if err == nil {
				t.Errorf("workloads called %q", node)
			}
		}
	}
	if err := nc.FlushTimeout(soon); err != nil || nc.NumSubscriptions() > 1 { // one for all replies
		t.Errorf("the connection is broken: %v, %d subscriptions", err, nc.NumSubscriptions())
	}
}

// gathered is what an iterator yielded.
type gathered[T any] struct {
	values []T
	errs   []error
}

func gather[T any](seq iter.Seq2[T, error]) (g gathered[T]) {
	for v, err := range seq {
		if err != nil {
			g.errs = append(g.errs, err)
			continue
		}
		g.values = append(g.values, v)
	}
	return g
}

func TestNodesEndsEarly(t *testing.T) {
	c, nc := connect(t)
	ping := func(id string) string {
		return `{"type":"io.nats.nex.v1.ping_response","data":{"node_id":"` + id + `","running_machines":2}}`
	}
	respond(t, nc, "$NEX.PING", ping("N1"), "", ping("N2"), ping("N3")) // empty replies are skipped
	before, start := nc.NumSubscriptions(), time.Now()
	g := gather(c.Nodes(minute(t), nex.NodeFilter{}))
	seen := map[string]bool{}
	for _, n := range g.values {
		seen[n.NodeID] = n.RunningMachines == 2
	}
	if len(g.errs) > 0 || len(g.values) != 3 || !seen["N1"] || !seen["N2"] || !seen["N3"] {
		t.Errorf("got %+v", g)
	}
	if took := time.Since(start); took > soon {
		t.Errorf("took %v of a minute", took)
	}
	if nc.NumSubscriptions() != before {
		t.Error("a subscription is left")
	}
}

func TestNodesGoesOnAfterBadReplies(t *testing.T) {
	c, nc := connect(t)
	respond(t, nc, "$NEX.PING", "garbage", `{"error":"boom","code":"denied"}`, `{"data":{"node_id":"N1"}}`)
	g := gather(c.Nodes(minute(t), nex.NodeFilter{}))
	if len(g.values) != 1 || len(g.errs) != 2 || nex.CodeOf(g.errs[1]) != nex.Denied {
		t.Errorf("got %+v", g)
	}
}

func TestNodesWithNobodyEnds(t *testing.T) {
	c, nc := connect(t)
	start := time.Now()
	if g := gather(c.Nodes(minute(t), nex.NodeFilter{})); len(g.values)+len(g.errs) > 0 || time.Since(start) > soon {
		t.Errorf("nobody listens: %+v after %v", g, time.Since(start))
	}
	if _, err := nc.SubscribeSync(">"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if g := gather(c.Nodes(ctx, nex.NodeFilter{})); len(g.values)+len(g.errs) > 0 {
		t.Errorf("nobody answers: %+v", g)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if g := gather(c.Nodes(ctx, nex.NodeFilter{})); len(g.values) > 0 {
		t.Errorf("cancelled: %+v", g)
	}
}

func TestNodesStopsAtBreak(t *testing.T) {
	c, nc := connect(t)
	const reply = `{"data":{"node_id":"N1"}}`
	respond(t, nc, "$NEX.PING", reply, reply, reply)
	before := nc.NumSubscriptions()
	for _, err := range c.Nodes(minute(t), nex.NodeFilter{}) {
		if err != nil {
			t.Error(err)
		}
		break
	}
	if nc.NumSubscriptions() != before {
		t.Error("a subscription is left")
	}
}

// TestSilenceIsAnAnswer: nodes that have nothing to say are there, and that is
// soon known.
func TestSilenceIsAnAnswer(t *testing.T) {
	c, nc := connect(t)
	respond(t, nc, "$NEX.PING", `{"data":{"node_id":"N1"}}`)
	for _, silent := range []string{"$NEX.AUCTION", "$NEX.WPING.>"} {
		if _, err := nc.Subscribe(silent, func(*nats.Msg) {}); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	bids, workloads := gather(c.Auction(minute(t), nex.AuctionRequest{})), gather(c.Workloads(minute(t), ""))
	if len(bids.values)+len(bids.errs)+len(workloads.values)+len(workloads.errs) > 0 {
		t.Errorf("got %+v, %+v", bids, workloads)
	}
	if took := time.Since(start); took > soon {
		t.Errorf("took %v of a minute", took)
	}
}

func TestNodeFilter(t *testing.T) {
	c, nc := connect(t)
	node := func(id, nexus, site string) string {
		return `{"data":{"node_id":"` + id + `","nexus":"` + nexus + `","tags":{"site":"` + site + `"}}}`
	}
	respond(t, nc, "$NEX.PING", node("N1", "a", "Lab"), node("N2", "a", "home"), "garbage", node("N3", "b", "lab"), node("N4", "a", "lab"))
	for want, f := range map[string]nex.NodeFilter{
		"N1 N2 N3 N4": {}, "N1 N2 N4": {Nexus: "a"}, "N1 N3 N4": {Tags: map[string]string{"site": "LAB"}},
		"N1 N4": {Nexus: "a", Tags: map[string]string{"site": "lab"}}, "": {Tags: map[string]string{"gpu": ""}},
		"N1 N2": {Count: 2}, "N3": {Nexus: "b", Count: 1},
	} {
		var ids []string
		for _, n := range gather(c.Nodes(minute(t), f)).values {
			ids = append(ids, n.NodeID)
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%+v: %s, want %s", f, got, want)
		}
	}
}

// TestCodesOfOldNodes: Nex 0.2.7 sends texts alone.
func TestCodesOfOldNodes(t *testing.T) {
	seen := map[nex.Code]int{}
	for _, file := range []string{"control_deploy", "control_stop"} {
		for _, e := range vector[[]exchange](t, file) {
			var reply nex.Envelope
			if len(e.Reply) > 0 && e.Reply[0] == '{' {
				reply = parse[nex.Envelope](t, e.Reply)
			}
			if reply.Error == "" {
				continue
			}
			c, nc := connect(t)
			respond(t, nc, "$NEX.STOP.ns.N1", string(e.Reply))
			_, err := c.Stop(minute(t), "N1", nex.StopRequest{})
			seen[nex.CodeOf(err)]++
			if err == nil || err.Error() != reply.Error {
				t.Errorf("%s: %v", e.Name, err)
			}
		}
	}
	for _, code := range []nex.Code{nex.LameDuck, nex.Exhausted, nex.NotFound, nex.Invalid, nex.Unsupported, nex.Denied, nex.Unauthorized} {
		if seen[code] == 0 {
			t.Errorf("no refusal is %s: %v", code, seen)
		}
	}
}

func TestPing(t *testing.T) {
	c, nc := connect(t)
	respond(t, nc, "$NEX.PING.N1", `{"data":{"node_id":"N1"}}`)
	if n, err := c.Ping(minute(t), "N1"); err != nil || n.NodeID != "N1" {
		t.Errorf("%+v, %v", n, err)
	}
	if _, err := c.Ping(minute(t), "N2"); nex.CodeOf(err) != nex.NoSuchNode {
		t.Errorf("nobody: %v", err)
	}
}

func TestAuctionAndWorkloads(t *testing.T) {
	c, nc := connect(t)
	auction := respond(t, nc, "$NEX.AUCTION", `{"type":"io.nats.nex.v1.auction_response","data":{"node_id":"N1","target_xkey":"X1"}}`)
	yes := true
	g := gather(c.Auction(minute(t), nex.AuctionRequest{Arch: "amd64", Sandboxed: &yes, WorkloadTypes: []nex.WorkloadType{nex.Wasm}}))
	if len(g.errs) > 0 || len(g.values) != 1 || g.values[0].TargetXkey != "X1" {
		t.Errorf("auction: %+v", g)
	}
	wantJSON(t, nextest.Await(t, auction.requests, "the auction").Data, []byte(`{"arch":"amd64","sandboxed":true,"workload_types":["wasm"]}`))

	pings := respond(t, nc, "$NEX.WPING.>", `{"data":{"node_id":"N1","running_machines":[{"id":"w1","namespace":"ns","name":"echofn","type":"v8"}]}}`)
	for idOrName, subject := range map[string]string{"": "$NEX.WPING.ns", "echofn": "$NEX.WPING.ns.echofn"} {
		w := gather(c.Workloads(minute(t), idOrName))
		if len(w.errs) > 0 || len(w.values) != 1 || w.values[0].RunningMachines[0] != (nex.WorkloadName{ID: "w1", Namespace: "ns", Name: "echofn", Type: nex.V8}) {
			t.Errorf("workloads %q: %+v", idOrName, w)
		}
		if got := nextest.Await(t, pings.requests, "the ping").Subject; got != subject {
			t.Errorf("asked on %s, want %s", got, subject)
		}
	}
}
