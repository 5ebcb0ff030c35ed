package workload_test

import (
	"context"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/micro"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
	"nex/internal/workload"
)

// TestAnswersThatDoNotFitBecomeErrors has functions answer as much as the server
// takes, and around that: whoever asked hears something in any case.
func TestAnswersThatDoNotFitBecomeErrors(t *testing.T) {
	const limit = 4096
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, MaxPayload: limit, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(nextest.Patience) {
		t.Fatal("NATS server did not start")
	}
	b := newBenchOn(t, s, workload.Limits{})
	var result guest.Result
	var failure error
	b.host.invoke = func(context.Context, guest.Trigger) (guest.Result, error) { return result, failure }
	b.deploy(t, function("f", "t.f"))

	const header = len("NATS/1.0\r\nA: b\r\n\r\n")
	for extra := -1; extra <= header+1; extra++ {
		result = guest.Result{Header: map[string][]string{"A": {"b"}}, Payload: make([]byte, limit-header+extra)}
		m, err := b.request(t, "t.f", "")
		if err != nil {
			t.Fatalf("%d bytes over the limit: %v", extra, err)
		}
		if got := m.Header.Get(micro.ErrorHeader) != ""; got != (extra > 0) {
			t.Errorf("%d bytes over the limit: an error: %v", extra, got)
		}
	}
	for _, text := range []string{strings.Repeat("\x01", 64<<10), strings.Repeat("\u2028", 1300), "short"} {
		failure = nex.Errorf(nex.Exception, "%s", text)
		m, err := b.request(t, "t.f", "")
		if err != nil {
			t.Fatalf("error of %d bytes: %v", len(text), err)
		}
		if m.Header.Get(micro.ErrorCodeHeader) == "" || !strings.Contains(string(m.Data), "code") {
			t.Errorf("got %q", m.Data)
		}
	}
}
