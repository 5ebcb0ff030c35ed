package node

import (
	"context"
	"log/slog"
	"testing"

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
