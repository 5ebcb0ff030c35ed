package node

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/nextest"
	"nex/internal/workload"
)

// TestCallsAtTheEndAreReported has a call end when the node does, while the
// reporter is busy with others.
func TestCallsAtTheEndAreReported(t *testing.T) {
	s := nextest.Server(t)
	nc := nextest.Connect(t, s)
	heard, err := nc.SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	r := newReporter(nc, "NODE", slog.New(slog.DiscardHandler))
	r.Called(workload.Call{Namespace: "default", Name: "f", ID: "id", Trigger: "t.f"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.run(ctx)
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	if n, _, err := heard.Pending(); err != nil || n != 2 {
		t.Errorf("%d messages, want the event and the log record; %v", n, err)
	}
}

// TestReportsThatAreLostAreCounted: NATS is away for longer than there is room
// for what there is to say.
func TestReportsThatAreLostAreCounted(t *testing.T) {
	srv := nextest.Server(t)
	port := srv.Addr().(*net.TCPAddr).Port
	nc, err := nats.Connect(srv.ClientURL(), nats.ReconnectBufSize(10_000), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	disconnected := nc.StatusChanged(nats.RECONNECTING)
	r := newReporter(nc, "NODE", slog.New(slog.DiscardHandler))
	running := runUntilStopped(r.run)
	defer running.stop()
	srv.Shutdown()
	srv.WaitForShutdown()
	nextest.Await(t, disconnected, "the connection to break")
	const told = 100
	for range told {
		r.Log(nex.LogSubject{Namespace: "default", Node: "NODE", Workload: "w", ID: "id"}, slog.LevelInfo, strings.Repeat("x", 1000))
	}

	again, err := nextest.StartServer(t.TempDir(), port)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { again.Shutdown(); again.WaitForShutdown() }()
	lost := make(chan nex.ReportsLost, 1)
	listener := nextest.Connect(t, again)
	_, err = listener.Subscribe("$NEX.events.system.>", func(m *nats.Msg) {
		var e nex.ReportsLost
		if parsed, err := nex.ParseEvent(m.Subject, m.Data); err == nil && parsed.Type() == e.EventType() && parsed.DataAs(&e) == nil {
			lost <- e
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Flush(); err != nil {
		t.Fatal(err)
	}
	if e := nextest.Await(t, lost, "the count"); e.Count < told/2 || e.Count >= told {
		t.Errorf("%d of %d are said to be lost", e.Count, told)
	}
}
