package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/control"
	"nex/internal/nextest"
	"nex/internal/nextest/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// id is the node under test.
const id = "NDWUSKGGFDI4FRXK5EBTRECZSVQSSWJHHJOGH6JWG3AUMFFMQ435CDIX"

// backend is a Backend whose methods a test sets.
type backend struct {
	deploy   func(context.Context, string, nex.DeployRequest) (nex.DeployReply, error)
	stop     func(context.Context, string, nex.StopRequest) (nex.StopReply, error)
	info     func(context.Context, string) (nex.InfoReply, error)
	lameDuck func(context.Context, nex.LameDuckRequest) (nex.LameDuckReply, error)
}

func (b backend) Deploy(ctx context.Context, ns string, r nex.DeployRequest) (nex.DeployReply, error) {
	return b.deploy(ctx, ns, r)
}

func (b backend) Stop(ctx context.Context, ns string, r nex.StopRequest) (nex.StopReply, error) {
	return b.stop(ctx, ns, r)
}

func (b backend) Info(ctx context.Context, ns string) (nex.InfoReply, error) { return b.info(ctx, ns) }

func (b backend) LameDuck(ctx context.Context, r nex.LameDuckRequest) (nex.LameDuckReply, error) {
	return b.lameDuck(ctx, r)
}

// directory is a Directory whose methods a test sets.
type directory struct {
	ping      func() nex.NodeInfo
	auction   func(nex.AuctionRequest) (nex.Bid, bool)
	workloads func(ns, idOrName string) (nex.NodeWorkloads, bool)
}

func (d directory) Ping() nex.NodeInfo { return d.ping() }

func (d directory) Auction(r nex.AuctionRequest) (nex.Bid, bool) { return d.auction(r) }

func (d directory) Workloads(ns, idOrName string) (nex.NodeWorkloads, bool) {
	return d.workloads(ns, idOrName)
}

// idle is a backend and a directory that answer everything with little.
func idle() (backend, directory) {
	return backend{
			deploy: func(context.Context, string, nex.DeployRequest) (nex.DeployReply, error) {
				return nex.DeployReply{Started: true, ID: "w1", Issuer: "A1", Name: "echofn"}, nil
			},
			stop: func(context.Context, string, nex.StopRequest) (nex.StopReply, error) {
				return nex.StopReply{Stopped: true, ID: "w1"}, nil
			},
			info: func(context.Context, string) (nex.InfoReply, error) { return nex.InfoReply{Version: "1"}, nil },
			lameDuck: func(context.Context, nex.LameDuckRequest) (nex.LameDuckReply, error) {
				return nex.LameDuckReply{NodeID: id, Success: true}, nil
			},
		}, directory{
			ping:    func() nex.NodeInfo { return nex.NodeInfo{NodeID: id} },
			auction: func(nex.AuctionRequest) (nex.Bid, bool) { return nex.Bid{NodeInfo: nex.NodeInfo{NodeID: id}}, true },
			workloads: func(string, string) (nex.NodeWorkloads, bool) {
				return nex.NodeWorkloads{NodeID: id, RunningMachines: []nex.WorkloadName{}}, true
			},
		}
}

// node is a control server under test, and a client beside it.
type node struct {
	t      *testing.T
	server *control.Server
	own    *nats.Conn // the server's connection
	client *nats.Conn
	log    *journal
}

func listen(t *testing.T, b backend, d directory) node {
	t.Helper()
	s := nextest.Server(t)
	n := node{t: t, own: nextest.Connect(t, s), client: nextest.Connect(t, s), log: &journal{}}
	var err error
	n.server, err = control.Listen(control.Config{Conn: n.own, NodeID: id, Backend: b, Directory: d, Log: slog.New(slog.NewTextHandler(n.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.server.Close)
	if err := n.own.Flush(); err != nil { // the NATS server knows the subscriptions
		t.Fatal(err)
	}
	return n
}

// journal is a log that tests read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// ask sends a request and returns the body of its one reply.
func (n node) ask(subject, body string) string {
	n.t.Helper()
	m, err := n.client.Request(subject, []byte(body), nextest.Patience)
	if err != nil {
		n.t.Fatalf("%s: %v", subject, err)
	}
	return string(m.Data)
}

// send publishes a request whose replies come to the subscription returned.
func (n node) send(subject, body string) *nats.Subscription {
	n.t.Helper()
	inbox := n.client.NewInbox()
	sub, err := n.client.SubscribeSync(inbox)
	if err != nil {
		n.t.Fatal(err)
	}
	if err := n.client.PublishRequest(subject, inbox, []byte(body)); err != nil {
		n.t.Fatal(err)
	}
	return sub
}

func (n node) next(sub *nats.Subscription) string {
	n.t.Helper()
	m, err := sub.NextMsg(nextest.Patience)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(m.Data)
}

// silent ends the server and checks that no reply came besides those read.
func (n node) silent(subs ...*nats.Subscription) {
	n.t.Helper()
	n.server.Close()
	for _, nc := range []*nats.Conn{n.own, n.client} {
		if err := nc.Flush(); err != nil {
			n.t.Fatal(err)
		}
	}
	for _, sub := range subs {
		if m, err := sub.NextMsg(time.Nanosecond); err == nil && len(m.Data) > 0 {
			n.t.Errorf("a reply too many: %s", m.Data)
		}
	}
}

func want(t *testing.T, what, got, expected string) {
	t.Helper()
	if got != expected {
		t.Errorf("%s:\ngot  %.300s\nwant %.300s", what, got, expected)
	}
}

// TestEverySubjectReachesItsMethod also fixes the bytes of every reply.
func TestEverySubjectReachesItsMethod(t *testing.T) {
	const deployed = `{"type":"io.nats.nex.v1.run_response","data":{"started":true,"id":"w1","issuer":"A1","name":"echofn"}}`
	const info = `{"node_id":"` + id + `","version":"","uptime":"","target_xkey":"","running_machines":0}`
	var calls []string
	call := func(format string, args ...any) { calls = append(calls, fmt.Sprintf(format, args...)) }
	b, d := idle()
	n := listen(t, backend{
		deploy: func(ctx context.Context, ns string, r nex.DeployRequest) (nex.DeployReply, error) {
			call("deploy %s %s %s/%s", ns, r.Type, r.Location.Bucket(), r.Location.Key())
			return b.Deploy(ctx, ns, r)
		},
		stop: func(ctx context.Context, ns string, r nex.StopRequest) (nex.StopReply, error) {
			call("stop %s %s", ns, r.WorkloadID)
			return b.Stop(ctx, ns, r)
		},
		info: func(ctx context.Context, ns string) (nex.InfoReply, error) {
			call("info %s", ns)
			return b.Info(ctx, ns)
		},
		lameDuck: func(ctx context.Context, r nex.LameDuckRequest) (nex.LameDuckReply, error) {
			call("lameduck %s", r.AdminJWT)
			return b.LameDuck(ctx, r)
		},
	}, directory{
		ping:    func() nex.NodeInfo { call("ping"); return d.ping() },
		auction: func(r nex.AuctionRequest) (nex.Bid, bool) { call("auction %s", r.Arch); return d.auction(r) },
		workloads: func(ns, idOrName string) (nex.NodeWorkloads, bool) {
			call("workloads %s %q", ns, idOrName)
			return d.workloads(ns, idOrName)
		},
	})
	workloads := `{"type":"io.nats.nex.v1.ping_response","data":{"node_id":"` + id + `","target_xkey":"","version":"","uptime":"","running_machines":[]}}`
	for _, c := range []struct{ subject, body, call, reply string }{
		{"$NEX.PING", "", "ping", `{"type":"io.nats.nex.v1.ping_response","data":` + info + `}`},
		{"$NEX.PING." + id, `{"any":1}`, "ping", `{"type":"io.nats.nex.v1.ping_response","data":` + info + `}`},
		{"$NEX.AUCTION", `{"arch":"amd64"}`, "auction amd64", `{"type":"io.nats.nex.v1.auction_response","data":` + info + `}`},
		{"$NEX.WPING.ns", "", `workloads ns ""`, workloads},
		{"$NEX.WPING.NS.EchoFN", "", `workloads NS "EchoFN"`, workloads},
		{"$NEX.WPING.*.echofn", "", `workloads * "echofn"`, workloads},
		{"$NEX.INFO.ns." + id, "", "info ns", `{"type":"io.nats.nex.v1.info_response","data":{"version":"1","uptime":"","public_xkey":"","memory":{"total":0,"free":0,"available":0},"machines":null}}`},
		{"$NEX.DEPLOY.ns." + id, `{"type":"v8","location":{"Host":"B","Path":"/key"}}`, "deploy ns v8 B/key", deployed},
		{"$NEX.DEPLOY.other." + id, `{"type":"wasm","location":"nats://B/key"}`, "deploy other wasm B/key", deployed},
		{"$NEX.STOP.ns." + id, `{"workload_id":"w1"}`, "stop ns w1", `{"type":"io.nats.nex.v1.stop_response","data":{"stopped":true,"id":"w1","issuer":"","name":""}}`},
		{"$NEX.LAMEDUCK." + id, "", "lameduck ", `{"type":"io.nats.nex.v1.lameduck_response","data":{"node_id":"` + id + `","success":true}}`},
	} {
		calls = nil
		want(t, c.subject, n.ask(c.subject, c.body), c.reply)
		if len(calls) != 1 || calls[0] != c.call {
			t.Errorf("%s: called %q, want %q", c.subject, calls, c.call)
		}
	}
	n.silent()
}

func TestFailuresAreRepliesWithACode(t *testing.T) {
	var err error
	b := backend{
		deploy: func(context.Context, string, nex.DeployRequest) (nex.DeployReply, error) {
			return nex.DeployReply{ID: "w1"}, err
		},
		stop:     func(context.Context, string, nex.StopRequest) (nex.StopReply, error) { return nex.StopReply{}, err },
		info:     func(context.Context, string) (nex.InfoReply, error) { return nex.InfoReply{}, err },
		lameDuck: func(context.Context, nex.LameDuckRequest) (nex.LameDuckReply, error) { return nex.LameDuckReply{}, err },
	}
	_, d := idle()
	n := listen(t, b, d)
	full := nex.Errorf(nex.Exhausted, "Node is at maximum workload limit. Deploy request denied")
	for _, c := range []struct {
		err  error
		rest string
	}{
		{full, `"data":"","error":"Node is at maximum workload limit. Deploy request denied","code":"exhausted"}`},
		{fmt.Errorf("Failed to deploy workload: %w", nex.Errorf(nex.Invalid, "a <b>")), `"data":"","error":"Failed to deploy workload: a \u003cb\u003e","code":"invalid"}`},
		{errors.New("disk \"on\" fire"), `"data":"","error":"disk \"on\" fire","code":"internal"}`},
	} {
		err = c.err
		for subject, typ := range map[string]string{
			"$NEX.DEPLOY.ns." + id: "run", "$NEX.STOP.ns." + id: "stop", "$NEX.INFO.ns." + id: "info", "$NEX.LAMEDUCK." + id: "lameduck",
		} {
			want(t, subject, n.ask(subject, "{}"), `{"type":"io.nats.nex.v1.`+typ+`_response",`+c.rest)
		}
	}
	if log := n.log.String(); strings.Count(log, "Request failed") != 4 || strings.Contains(log, "maximum") {
		t.Errorf("only internal errors are for the operator, once each:\n%s", log)
	}
}

// exchange is one case of the golden control_*.json files.
type exchange struct {
	Name, Subject string
	Request       json.RawMessage
	Raw           *string `json:"request_raw"`
	Reply         json.RawMessage
}

// TestGoldenReplies plays the exchanges of Nex 0.2.7. What a node decides is
// the backend's; the envelope, and the refusal of what is no JSON, are ours.
func TestGoldenReplies(t *testing.T) {
	var reply nex.Envelope
	n := listen(t, backend{
		deploy: func(context.Context, string, nex.DeployRequest) (nex.DeployReply, error) {
			return play[nex.DeployReply](t, reply)
		},
		stop: func(context.Context, string, nex.StopRequest) (nex.StopReply, error) {
			return play[nex.StopReply](t, reply)
		},
		info: func(context.Context, string) (nex.InfoReply, error) { return play[nex.InfoReply](t, reply) },
		lameDuck: func(context.Context, nex.LameDuckRequest) (nex.LameDuckReply, error) {
			return play[nex.LameDuckReply](t, reply)
		},
	}, directory{
		ping: func() nex.NodeInfo { info, _ := play[nex.NodeInfo](t, reply); return info },
		auction: func(nex.AuctionRequest) (nex.Bid, bool) {
			bid, _ := play[nex.Bid](t, reply)
			return bid, reply.Type != ""
		},
		workloads: func(string, string) (nex.NodeWorkloads, bool) {
			w, _ := play[nex.NodeWorkloads](t, reply)
			return w, reply.Type != ""
		},
	})
	played := 0
	for file, subject := range map[string]string{
		"ping_wping": "", "auction": nex.AuctionSubject, "info_lameduck": "", "deploy": "", "stop": "",
	} {
		data, err := os.ReadFile(filepath.Join("..", "..", "testdata", "wire", "control_"+file+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var cases []exchange
		if err := json.Unmarshal(data, &cases); err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			if c.Subject == "" {
				c.Subject = subject
			}
			if c.Subject == "" || !bytes.HasPrefix(c.Reply, []byte("{")) {
				continue
			}
			if err := json.Unmarshal(c.Reply, &reply); err != nil {
				t.Fatal(err)
			}
			wantEnvelope(t, c, n.ask(c.Subject, c.body()))
			reply = nex.Envelope{}
			played++
		}
	}
	if played < 40 {
		t.Errorf("played %d exchanges only", played)
	}
}

func (c exchange) body() string {
	switch {
	case c.Raw != nil:
		return *c.Raw
	case string(c.Request) == `""`:
		return ""
	}
	return string(c.Request)
}

// play returns what a golden reply says.
func play[T any](t *testing.T, e nex.Envelope) (v T, err error) {
	if e.Error != "" {
		return v, errors.New(e.Error)
	}
	if e.Data != nil {
		if err := json.Unmarshal(e.Data, &v); err != nil {
			t.Error(err)
		}
	}
	return v, nil
}

// wantEnvelope compares a reply with a golden one, which has no code.
func wantEnvelope(t *testing.T, c exchange, got string) {
	t.Helper()
	var g, w map[string]any
	if err := errors.Join(json.Unmarshal([]byte(got), &g), json.Unmarshal(c.Reply, &w)); err != nil {
		t.Fatal(err)
	}
	if code, ok := g["code"]; ok != (w["error"] != nil) || ok && code == "" {
		t.Errorf("%s: code %v", c.Name, code)
	}
	delete(g, "code")
	if !reflect.DeepEqual(g, w) {
		t.Errorf("%s:\ngot  %s\nwant %s", c.Name, got, c.Reply)
	}
}
