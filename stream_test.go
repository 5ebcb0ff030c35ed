package nex_test

import (
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

// item is one turn of an iterator.
type item[T any] struct {
	value T
	err   error
}

// follow runs an iterator over a subscription of nc beside the test and
// returns when it has subscribed. The channel is closed when the iterator ends.
func follow[T any](t *testing.T, nc *nats.Conn, seq iter.Seq2[T, error]) <-chan item[T] {
	t.Helper()
	before := nc.NumSubscriptions()
	items := make(chan item[T], 100)
	go func() {
		defer close(items)
		for v, err := range seq {
			items <- item[T]{v, err}
		}
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(nextest.Patience); nc.NumSubscriptions() == before; {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the iterator did not subscribe")
		}
	}
	return items
}

// ended waits for the end of a followed iterator, which must not yield more.
func ended[T any](t *testing.T, items <-chan item[T]) {
	t.Helper()
	if i := nextest.Await(t, items, "the end of the stream"); i.err != nil {
		t.Errorf("the stream ended with %v", i.err)
	}
	if _, more := <-items; more {
		t.Error("the stream went on")
	}
}

func publish(t *testing.T, nc *nats.Conn, subject string, body []byte) {
	t.Helper()
	if err := nc.Publish(subject, body); err != nil {
		t.Fatal(err)
	}
}

func TestEvents(t *testing.T) {
	c, nc := connect(t)
	ctx, cancel := context.WithCancel(t.Context())
	before := nc.NumSubscriptions()
	items := follow(t, nc, c.Events(ctx, "ns", "*"))
	deployed, err := nex.NewEvent("ns", "N1-w1", nex.WorkloadDeployed{Name: "echofn"})
	if err != nil {
		t.Fatal(err)
	}
	body := marshal(t, deployed.Event)
	publish(t, nc, "$NEX.events.other.workload_deployed", body)
	publish(t, nc, "$NEX.events.ns.workload_deployed", []byte("garbage"))
	publish(t, nc, deployed.Subject(), body)
	if i := nextest.Await(t, items, "an error"); i.err == nil || !strings.Contains(i.err.Error(), "$NEX.events.ns.workload_deployed") {
		t.Errorf("garbage: %+v", i)
	}
	if i := nextest.Await(t, items, "an event"); i.err != nil || i.value.ID() != deployed.ID() || i.value.Namespace != "ns" {
		t.Errorf("got %+v", i)
	}
	cancel()
	ended(t, items)
	if nc.NumSubscriptions() != before {
		t.Error("a subscription is left")
	}
}

func TestEventsOfOneType(t *testing.T) {
	c, nc := connect(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	items := follow(t, nc, c.Events(ctx, "*", "heartbeat"))
	for _, v := range vector[[]eventCase](t, "events") {
		publish(t, nc, v.Subject, v.Event)
	}
	if i := nextest.Await(t, items, "an event"); i.err != nil || i.value.Type() != "heartbeat" || i.value.Namespace != nex.SystemNamespace {
		t.Errorf("got %+v", i)
	}
	if err := nc.FlushTimeout(soon); err != nil {
		t.Fatal(err)
	}
	cancel()
	ended(t, items)
}

func TestLogs(t *testing.T) {
	c, nc := connect(t)
	record := func(id string) []byte { return marshal(t, nex.LogRecord{Text: "x", ID: id}) }
	lines := []struct {
		subject string
		body    []byte
	}{
		{"$NEX.logs.other.N1.svc.w1", record("w1")}, // another namespace: never seen
		{"$NEX.logs.ns.N1.svc.w1", record("w1")},
		{"$NEX.logs.ns.N1.svc.w2", record("w2")},
		{"$NEX.logs.ns.N2.svc.w3", record("w3")},
		{"$NEX.logs.ns.N1.fn.w4", record("w4")},
		{"$NEX.logs.ns.N1.w5.svc", record("w5")}, // as Nex 0.2.7 relays
		{"$NEX.logs.ns.N1.bad.bad", []byte("garbage")},
	}
	for name, f := range map[string]struct {
		filter nex.LogSubject
		ids    []string
	}{
		"all":             {nex.LogSubject{}, []string{"w1", "w2", "w3", "w4", "w5", "error"}},
		"node":            {nex.LogSubject{Node: "N2"}, []string{"w3"}},
		"workload":        {nex.LogSubject{Workload: "svc"}, []string{"w1", "w2", "w3", "w5", "error"}},
		"id":              {nex.LogSubject{ID: "w5"}, []string{"w5", "error"}},
		"workload and id": {nex.LogSubject{Node: "N1", Workload: "svc", ID: "w2"}, []string{"w2", "error"}},
		"other namespace": {nex.LogSubject{Namespace: "other", Workload: "fn"}, []string{"w4", "error"}},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		items := follow(t, nc, c.Logs(ctx, f.filter))
		for _, l := range lines {
			publish(t, nc, l.subject, l.body)
		}
		for _, id := range f.ids {
			i := nextest.Await(t, items, "a record")
			if (i.err != nil) != (id == "error") || i.err == nil && i.value.ID != id {
				t.Errorf("%s: got %+v, want %s", name, i, id)
			}
		}
		cancel()
		ended(t, items)
	}
}

func TestStreamsStopAtBreak(t *testing.T) {
	c, nc := connect(t)
	stopped := func(yield func(nex.Log, error) bool) {
		for l, err := range c.Logs(t.Context(), nex.LogSubject{}) {
			yield(l, err)
			return
		}
	}
	before := nc.NumSubscriptions()
	items := follow(t, nc, stopped)
	publish(t, nc, "$NEX.logs.ns.N1.svc.w1", []byte(`{"text":"x","level":"INFO","id":"w1"}`))
	if i := nextest.Await(t, items, "a record"); i.err != nil || i.value.Text != "x" {
		t.Errorf("got %+v", i)
	}
	ended(t, items)
	if nc.NumSubscriptions() != before {
		t.Error("a subscription is left")
	}
}

func TestStreamEndsWithItsConnection(t *testing.T) {
	c, nc := connect(t)
	items := follow(t, nc, c.Events(t.Context(), "*", "*"))
	nc.Close()
	if i := nextest.Await(t, items, "an error"); i.err == nil {
		t.Errorf("got %+v", i)
	}
	ended(t, items)
}

// TestSlowReaderIsToldAndGoesOn loses events where the reader is slower than
// the sender, and does not hide it.
func TestSlowReaderIsToldAndGoesOn(t *testing.T) {
	nc, err := nats.Connect(nextest.Server(t).ClientURL(), nats.SyncQueueLen(1), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := newClient(t, nc, "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	more := make(chan struct{})
	slow := func(yield func(nex.Event, error) bool) {
		for e, err := range c.Events(ctx, "*", "*") {
			if !yield(e, err) {
				return
			}
			<-more
		}
	}
	items := follow(t, nc, slow)
	v := vector[[]eventCase](t, "events")[0]
	for range 20 {
		publish(t, nc, v.Subject, v.Event)
	}
	if err := nc.FlushTimeout(soon); err != nil {
		t.Fatal(err)
	}
	close(more)
	for told := false; !told; {
		told = errors.Is(nextest.Await(t, items, "the news of lost events").err, nats.ErrSlowConsumer)
	}
	for last := false; !last; { // every event is yielded, or the news that it was lost
		publish(t, nc, "$NEX.events.ns.last", v.Event)
		i := nextest.Await(t, items, "the last event")
		last = i.err == nil && i.value.Namespace == "ns"
	}
	cancel()
	for range items {
	}
}
