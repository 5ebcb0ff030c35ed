package control_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/control"
	"nex/internal/nextest"
)

// bodies are what nobody in their right mind sends.
func bodies() map[string]string {
	noise := make([]byte, 1<<20)
	_, _ = rand.Read(noise) // never fails
	return map[string]string{
		"empty": "", "null": "null", "object": "{}", "array": "[]", "number": "5", "text": `"x"`, "garbage": "not json",
		"noise": string(noise), "invalid UTF-8": "{\"description\":\"\xff\xfe\"}", "bare invalid UTF-8": "\xff\xfe",
		"deep": strings.Repeat("[", 1<<20), "deep object": strings.Repeat(`{"location":`, 1<<16),
		"wrong types":     `{"type":5,"location":[],"argv":{},"workload_id":{},"arch":[]}`,
		"long location":   `{"location":"nats://[` + strings.Repeat("x", 1<<20-100) + `"}`,
		"huge number":     `{"retry_count":1e999,"function_timeout_ms":99999999999999999999}`,
		"two values":      "{}{}",
		"null everywhere": `{"type":null,"location":null,"argv":null,"environment":null,"trigger_connection":null,"tags":null,"sandboxed":null}`,
	}
}

func TestEveryBodyIsAnsweredOnce(t *testing.T) {
	b, d := idle()
	n := listen(t, b, d)
	var subs []*nats.Subscription
	for what, body := range bodies() {
		for _, subject := range []string{
			"$NEX.PING", "$NEX.PING." + id, "$NEX.AUCTION", "$NEX.WPING.ns", "$NEX.WPING.ns.w1", "$NEX.INFO.ns." + id, "$NEX.LAMEDUCK." + id,
		} {
			sub := n.send(subject, body)
			if reply := n.next(sub); strings.Contains(reply, `"error"`) {
				t.Errorf("%s with %s: %s", subject, what, reply)
			}
			subs = append(subs, sub)
		}
		for _, verb := range []string{"DEPLOY", "STOP"} {
			sub := n.send("$NEX."+verb+".ns."+id, body)
			reply := n.next(sub)
			refused := strings.Contains(reply, `"data":"","error":"Unable to deserialize `+strings.ToLower(verb)+` request: `) &&
				strings.HasSuffix(reply, `"code":"invalid"}`)
			served := !strings.Contains(reply, `"error"`)
			switch what {
			case "null", "object", "invalid UTF-8", "null everywhere":
				if !served {
					t.Errorf("%s with %s: %.200s", verb, what, reply)
				}
			case "huge number", "long location":
				if served != (verb == "STOP") || !served && !refused { // a stop request has no such fields
					t.Errorf("%s with %s: %.200s", verb, what, reply)
				}
			default:
				if !refused {
					t.Errorf("%s with %s: %.200s", verb, what, reply)
				}
			}
			subs = append(subs, sub)
		}
	}
	if log := n.log.String(); log != "" {
		t.Errorf("hostile requests are no news to the operator: %.300s", log)
	}
	n.silent(subs...)
}

// TestAuctionOfAnythingAsksForNothing: a body that is no auction is answered
// as an empty one, not with what could be read of it.
func TestAuctionOfAnythingAsksForNothing(t *testing.T) {
	asked := make(chan nex.AuctionRequest, 1)
	b, d := idle()
	auction := d.auction
	d.auction = func(r nex.AuctionRequest) (nex.Bid, bool) { asked <- r; return auction(r) }
	n := listen(t, b, d)
	for _, body := range []string{"", "null", "garbage", "[]", `{"arch":"arm64","os":5}`} {
		n.ask("$NEX.AUCTION", body)
		if r := <-asked; r.Arch != "" || r.OS != "" || r.Sandboxed != nil || r.Tags != nil || r.WorkloadTypes != nil {
			t.Errorf("%s asked for %+v", body, r)
		}
	}
}

// TestSilence: only those who have something to say answer.
func TestSilence(t *testing.T) {
	b, d := idle()
	d.auction = func(nex.AuctionRequest) (nex.Bid, bool) { return nex.Bid{}, false }
	workloads := d.workloads
	d.workloads = func(ns, idOrName string) (nex.NodeWorkloads, bool) {
		if ns != "ns" {
			return nex.NodeWorkloads{}, false
		}
		return workloads(ns, idOrName)
	}
	n := listen(t, b, d)
	subs := []*nats.Subscription{
		n.send("$NEX.AUCTION", ""), n.send("$NEX.WPING.other", ""), n.send("$NEX.WPING.ns.a.b", ""), n.send("$NEX.WPING.ns.a.b.c.d", ""),
	}
	n.ask("$NEX.WPING.ns", "") // taken after those before it
	n.silent(subs...)
}

// TestOtherSubjectsAreNotHeard covers other nodes and what only looks alike.
func TestOtherSubjectsAreNotHeard(t *testing.T) {
	b, d := idle()
	n := listen(t, b, d)
	other := "NCXXPXMQ4DEADNODEDEADNODEDEADNODEDEADNODEDEADNODEDEADNOD"
	for _, subject := range []string{
		"$NEX.PING." + other, "$NEX.INFO.ns." + other, "$NEX.DEPLOY.ns." + other, "$NEX.STOP.ns." + other, "$NEX.LAMEDUCK." + other,
		"$NEX.WPING", "$NEX.AUCTION." + id, "$NEX.INFO." + id, "$NEX.DEPLOY." + id, "$NEX.DEPLOY.a.b." + id, "$NEX.STOP.ns." + id + ".x",
		"$NEX.RUN.ns." + id, "$NEX.LAMEDUCK", "$NEX.LAMEDUCK.ns." + id, "$NEX.events.ns.x",
	} {
		if m, err := n.client.Request(subject, []byte("{}"), nextest.Patience); !errors.Is(err, nats.ErrNoResponders) {
			t.Errorf("%s: %v, %v", subject, m, err)
		}
	}
}

func TestPanicIsAnInternalError(t *testing.T) {
	b, d := idle()
	b.deploy = func(context.Context, string, nex.DeployRequest) (nex.DeployReply, error) { panic("secret detail") }
	var machines []nex.MachineSummary
	b.info = func(context.Context, string) (nex.InfoReply, error) {
		return nex.InfoReply{Machines: machines[:1]}, nil // out of range
	}
	d.ping = func() nex.NodeInfo { panic(errors.New("secret detail")) }
	n := listen(t, b, d)
	for range 3 {
		for subject, typ := range map[string]string{"$NEX.DEPLOY.ns." + id: "run", "$NEX.INFO.ns." + id: "info", "$NEX.PING": "ping"} {
			want(t, subject, n.ask(subject, "{}"), `{"type":"io.nats.nex.v1.`+typ+`_response","data":"","error":"internal error","code":"internal"}`)
		}
	}
	if log := n.log.String(); !strings.Contains(log, "secret detail") || !strings.Contains(log, "hostile_test.go") {
		t.Errorf("the operator does not learn where it was: %s", log)
	}
	want(t, "later", n.ask("$NEX.STOP.ns."+id, "{}"), `{"type":"io.nats.nex.v1.stop_response","data":{"stopped":true,"id":"w1","issuer":"","name":""}}`)
}

func TestOverlongReplyBecomesAnError(t *testing.T) {
	b, d := idle()
	b.info = func(context.Context, string) (nex.InfoReply, error) {
		return nex.InfoReply{Version: strings.Repeat("x", 2<<20)}, nil
	}
	n := listen(t, b, d)
	reply := n.ask("$NEX.INFO.ns."+id, "")
	if len(reply) > 500 || !strings.Contains(reply, `_response","data":"","error":"the reply of 2097`) || !strings.HasSuffix(reply, `"code":"exhausted"}`) {
		t.Errorf("got %.300s", reply)
	}
}

// TestOverlongErrorIsCut: errors quote what was asked, of any length.
func TestOverlongErrorIsCut(t *testing.T) {
	b, d := idle()
	b.lameDuck = func(context.Context, nex.LameDuckRequest) (nex.LameDuckReply, error) {
		return nex.LameDuckReply{}, errors.New("x" + strings.Repeat("ü", 1<<20))
	}
	n := listen(t, b, d)
	const before, after = `{"type":"io.nats.nex.v1.lameduck_response","data":"","error":"x`, `…","code":"internal"}`
	want(t, "lame duck", n.ask("$NEX.LAMEDUCK."+id, ""), before+strings.Repeat("ü", 2<<10-1)+after)
}

func TestRequestWithoutReplySubject(t *testing.T) {
	called := make(chan string, 1)
	b, d := idle()
	b.deploy = func(_ context.Context, ns string, _ nex.DeployRequest) (nex.DeployReply, error) {
		called <- ns
		return nex.DeployReply{}, errors.New("boom")
	}
	n := listen(t, b, d)
	for _, body := range []string{"{}", "garbage", "{}"} {
		if err := n.client.Publish("$NEX.DEPLOY.ns."+id, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if ns := nextest.Await(t, called, "the deploy"); ns != "ns" {
			t.Errorf("namespace %s", ns)
		}
	}
	n.ask("$NEX.PING", "")
	n.server.Close()
	if log := n.log.String(); strings.Contains(log, "could not be sent") {
		t.Errorf("replied to nobody: %s", log)
	}
}

// TestRepliesGiveNoCommands: who asks does not choose where the node speaks with
// its permissions.
func TestRepliesGiveNoCommands(t *testing.T) {
	n := listen(t, backend{}, directory{ping: func() nex.NodeInfo { return nex.NodeInfo{NodeID: id} }})
	for _, reply := range []string{"$NEX.LAMEDUCK.other", "$NEX.events.ns.heartbeat", "$JS.API.STREAM.DELETE.X", "$SYS.REQ.X", "elsewhere"} {
		sub, err := n.client.SubscribeSync(reply)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.client.PublishRequest("$NEX.PING", reply, nil); err != nil {
			t.Fatal(err)
		}
		n.ask("$NEX.PING", "") // answered after the other, if that was
		_, err = sub.NextMsg(time.Nanosecond)
		if answered := err == nil; answered != (reply == "elsewhere") {
			t.Errorf("%s: answered is %t", reply, answered)
		}
	}
}

// blocked is a backend whose deploys wait: entered has a value for each that
// began, and they end when their context or release does.
func blocked() (_ backend, _ directory, entered chan struct{}, release chan struct{}) {
	entered, release = make(chan struct{}, 1000), make(chan struct{})
	b, d := idle()
	deploy := b.deploy
	b.deploy = func(ctx context.Context, ns string, r nex.DeployRequest) (nex.DeployReply, error) {
		entered <- struct{}{}
		select {
		case <-release:
			return deploy(ctx, ns, r)
		case <-ctx.Done():
			return nex.DeployReply{}, ctx.Err()
		}
	}
	return b, d, entered, release
}

func TestSlowDeployHoldsUpNobody(t *testing.T) {
	b, d, entered, release := blocked()
	n := listen(t, b, d)
	slow := n.send("$NEX.DEPLOY.ns."+id, "{}")
	nextest.Await(t, entered, "the deploy")
	for _, subject := range []string{"$NEX.INFO.ns." + id, "$NEX.PING", "$NEX.STOP.ns." + id, "$NEX.LAMEDUCK." + id} {
		n.ask(subject, "{}")
	}
	another := n.send("$NEX.DEPLOY.ns."+id, "{}")
	nextest.Await(t, entered, "a deploy beside the first")
	if got, _, _ := slow.Pending(); got != 0 {
		t.Error("the slow deploy was answered early")
	}
	close(release)
	for _, sub := range []*nats.Subscription{slow, another} {
		want(t, "deploy", n.next(sub), `{"type":"io.nats.nex.v1.run_response","data":{"started":true,"id":"w1","issuer":"A1","name":"echofn"}}`)
	}
	n.silent(slow, another)
}

func TestTooManyRequestsAreRefused(t *testing.T) {
	const most = 256
	b, d, entered, release := blocked()
	n := listen(t, b, d)
	var subs []*nats.Subscription
	for range most {
		subs = append(subs, n.send("$NEX.DEPLOY.ns."+id, "{}"))
	}
	for range most {
		nextest.Await(t, entered, "a deploy")
	}
	const refusal = `"data":"","error":"node is working on 256 requests, try again later","code":"overloaded"}`
	want(t, "deploy", n.ask("$NEX.DEPLOY.ns."+id, "{}"), `{"type":"io.nats.nex.v1.run_response",`+refusal)
	want(t, "stop", n.ask("$NEX.STOP.ns."+id, "{}"), `{"type":"io.nats.nex.v1.stop_response",`+refusal)
	for _, subject := range []string{"$NEX.INFO.ns." + id, "$NEX.PING", "$NEX.LAMEDUCK." + id} { // what takes no time
		if reply := n.ask(subject, ""); strings.Contains(reply, `"error"`) {
			t.Errorf("%s: %s", subject, reply)
		}
	}
	close(release)
	for _, sub := range subs {
		if reply := n.next(sub); strings.Contains(reply, `"error"`) {
			t.Errorf("got %s", reply)
		}
	}
	n.silent(subs...)
}

// TestRequestsDoNotAddUp: the limit is on what happens at once.
func TestRequestsDoNotAddUp(t *testing.T) {
	b, d := idle()
	n := listen(t, b, d)
	for range 600 {
		if reply := n.ask("$NEX.STOP.ns."+id, "{}"); strings.Contains(reply, `"error"`) {
			t.Fatal(reply)
		}
	}
}

// TestCloseUnderFire closes servers while requests pour in: each request is
// answered, by the server or by NATS, and none is taken afterwards.
func TestCloseUnderFire(t *testing.T) {
	const shots = 100
	s := nextest.Server(t)
	own, client := nextest.Connect(t, s), nextest.Connect(t, s)
	for range 20 {
		b, d := idle()
		var closed atomic.Bool
		busy := make(chan struct{}, shots)
		d.ping = func() nex.NodeInfo {
			if closed.Load() {
				t.Error("a request after Close")
			}
			busy <- struct{}{}
			return nex.NodeInfo{}
		}
		server, err := control.Listen(control.Config{Conn: own, NodeID: id, Backend: b, Directory: d, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		flush(t, own)
		inbox := client.NewInbox()
		answers, err := client.SubscribeSync(inbox)
		if err != nil {
			t.Fatal(err)
		}
		for range shots {
			for _, subject := range []string{"$NEX.PING", "$NEX.DEPLOY.ns." + id} {
				if err := client.PublishRequest(subject, inbox, []byte("{}")); err != nil {
					t.Fatal(err)
				}
			}
		}
		nextest.Await(t, busy, "a request")
		server.Close()
		closed.Store(true)
		flush(t, own)
		flush(t, client)
		if got, _, _ := answers.Pending(); got != 2*shots {
			t.Errorf("%d requests had %d answers", 2*shots, got)
		}
	}
}

// flush returns when the NATS server has all that nc sent, and nc all that
// the server sent before.
func flush(t *testing.T, nc *nats.Conn) {
	t.Helper()
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestCloseCancelsAndWaits(t *testing.T) {
	b, d, entered, _ := blocked()
	n := listen(t, b, d)
	sub := n.send("$NEX.DEPLOY.ns."+id, "{}")
	nextest.Await(t, entered, "the deploy")
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		n.server.Close()
	}()
	nextest.Await(t, closed, "the end")
	if err := n.own.Flush(); err != nil { // the reply was sent before Close returned
		t.Fatal(err)
	}
	want(t, "deploy", n.next(sub), `{"type":"io.nats.nex.v1.run_response","data":"","error":"node is shutting down","code":"unavailable"}`)
	if m, err := n.client.Request("$NEX.PING", nil, nextest.Patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("a closed server answers %v, %v", m, err)
	}
	n.server.Close() // again
}

// TestCloseWaitsForTheUnwilling: whatever a request does of its context.
func TestCloseWaitsForTheUnwilling(t *testing.T) {
	for _, subject := range []string{"$NEX.STOP.ns." + id, "$NEX.INFO.ns." + id} {
		b, d := idle()
		entered, release := make(chan struct{}), make(chan struct{})
		left := false
		linger := func() {
			close(entered)
			<-release
			left = true
		}
		b.stop = func(context.Context, string, nex.StopRequest) (nex.StopReply, error) {
			linger()
			return nex.StopReply{}, nil
		}
		b.info = func(context.Context, string) (nex.InfoReply, error) { linger(); return nex.InfoReply{}, nil }
		n := listen(t, b, d)
		n.send(subject, "{}")
		nextest.Await(t, entered, "the request")
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			n.server.Close()
			if !left { // the race detector would tell too
				t.Errorf("Close left a request on %s behind", subject)
			}
		}()
		for n.own.NumSubscriptions() > 0 {
			flush(t, n.own)
		}
		select {
		case <-closed:
			t.Error("Close did not wait")
		default:
		}
		close(release)
		nextest.Await(t, closed, "the end")
	}
}

func TestListenOnAClosedConnection(t *testing.T) {
	b, d := idle()
	nc := nextest.Connect(t, nextest.Server(t))
	nc.Close()
	s, err := control.Listen(control.Config{Conn: nc, NodeID: id, Backend: b, Directory: d, Log: slog.New(slog.DiscardHandler)})
	if s != nil || !errors.Is(err, nats.ErrConnectionClosed) || !strings.Contains(err.Error(), "$NEX.PING") {
		t.Errorf("got %v, %v", s, err)
	}
}

// TestListenLeavesNothingBehind: a node id that makes no subject.
func TestListenLeavesNothingBehind(t *testing.T) {
	b, d := idle()
	nc := nextest.Connect(t, nextest.Server(t))
	_, err := control.Listen(control.Config{Conn: nc, NodeID: "no node", Backend: b, Directory: d, Log: slog.New(slog.DiscardHandler)})
	if err == nil || nc.NumSubscriptions() != 0 {
		t.Errorf("%v, %d subscriptions", err, nc.NumSubscriptions())
	}
}
