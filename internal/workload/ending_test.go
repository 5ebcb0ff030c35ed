package workload_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
	"nex/internal/workload"
)

// TestServiceThatEndsByItselfWhileItsNodeEnds has done its work, and does not come
// back to do it once more.
func TestServiceThatEndsByItselfWhileItsNodeEnds(t *testing.T) {
	b := newBench(t, workload.Limits{})
	entered, release := make(chan struct{}), make(chan struct{})
	b.host.invoke = func(context.Context, guest.Trigger) (guest.Result, error) {
		close(entered)
		<-release
		return guest.Result{}, nil
	}
	once, again, f := b.deploy(t, service("once", false)), b.deploy(t, service("again", true)), b.deploy(t, function("f", "t.f"))
	if err := b.nc.Publish("t.f", nil); err != nil {
		t.Fatal(err)
	}
	nextest.Await(t, entered, "the call that holds up the end")
	b.drop(t, 3)
	closed := make(chan struct{})
	go func() { b.Close(nextest.Patience, func() {}); close(closed) }()
	for slot, err := b.Reserve(); err == nil; slot, err = b.Reserve() { // until it ends
		slot.Release()
	}
	for i, id := range []string{once, again} {
		b.host.taken()[i].exit(id, guest.Exit{Code: 1})
		b.event(t, nex.WorkloadUndeployed{})
	}
	close(release)
	nextest.Await(t, closed, "the end")
	for id, want := range map[string]int{once: 1, again: 0, f: 0} {
		if _, ended := b.journal.told(id); ended != want {
			t.Errorf("the journal heard %d times of the end of %s, want %d", ended, id, want)
		}
	}
}

// TestDrainOfANodeThatEnds: whoever has a node drained while it ends wants nothing
// back, also not what has ended by then.
func TestDrainOfANodeThatEnds(t *testing.T) {
	b := newBench(t, workload.Limits{})
	id := b.deploy(t, function("f", "t.f"))
	b.Close(nextest.Patience, func() {})
	b.Drain(nextest.Patience, func() {})
	if _, ended := b.journal.told(id); ended != 1 {
		t.Errorf("the journal heard %d times of its end", ended)
	}
	if _, ok := b.Get("default", id); ok {
		t.Error("it is still known")
	}
}

// TestRestoredFunctionMayNotListenAnyMore: a server that has refused a subscription
// goes on to; the function must not look well because it was tried before.
func TestRestoredFunctionMayNotListenAnyMore(t *testing.T) {
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, NoAuthUser: "u",
		Users: []*server.User{{Username: "u", Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"secret.>"}}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(nextest.Patience) {
		t.Fatal("no server")
	}
	b := newBenchOn(t, srv, workload.Limits{})
	b.restore(t, "old", function("f", "open.f", "secret.f"))
	for attempt := range 3 {
		e := <-b.report.events
		if r, ok := e.(nex.WorkloadRestarting); !ok || !strings.Contains(r.Reason, `"secret.f"`) {
			t.Fatalf("attempt %d ended with %+v", attempt+1, e)
		}
	}
	if s := b.summary(t, "old"); s.Healthy || !strings.Contains(s.Unhealthy, "does not let this node subscribe") {
		t.Errorf("it is said to be %+v", s)
	}
}

// TestStopThatNobodyWaitsFor goes on as one that is waited for: calls under way have
// as long as they may take.
func TestStopThatNobodyWaitsFor(t *testing.T) {
	b := newBench(t, workload.Limits{})
	entered, release := make(chan struct{}), make(chan struct{})
	b.host.invoke = func(context.Context, guest.Trigger) (guest.Result, error) {
		close(entered)
		<-release
		return guest.Result{Payload: []byte("late")}, nil
	}
	id := b.deploy(t, function("slow", "t.slow"))
	b.drop(t, 1)
	replies := make(chan *nats.Msg, 1)
	if _, err := b.nc.ChanSubscribe("answer", replies); err != nil {
		t.Fatal(err)
	}
	if err := b.nc.PublishRequest("t.slow", "answer", nil); err != nil {
		t.Fatal(err)
	}
	nextest.Await(t, entered, "the call")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Stop(ctx, id); nex.CodeOf(err) != nex.Timeout {
		t.Errorf("stopped: %v", err)
	}
	select {
	case e := <-b.report.events:
		t.Errorf("%+v while a call is running", e)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if m := nextest.Await(t, replies, "the reply"); string(m.Data) != "late" {
		t.Errorf("got %q %v", m.Data, m.Header)
	}
	b.event(t, nex.WorkloadUndeployed{})
}
