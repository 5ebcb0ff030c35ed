package machine_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"nex"
	"nex/internal/guest"
	"nex/internal/machine"
	"nex/internal/nextest"
)

// endless walks for years over an array, in native code that does not look
// whether it is to stop.
const endless = `() => Array.prototype.indexOf.call({length: 2**53 - 1}, 1)`

// TestAgentEndsWithCodeThatDoesNotStop: the call is late, not lost, the agent
// says whose code it was, and is gone.
func TestAgentEndsWithCodeThatDoesNotStop(t *testing.T) {
	g, pid, _ := boot(t, &machine.Processes{Agent: nextest.AgentPath(t)})
	faults := make(chan guest.Fault, 1)
	d := guest.Deploy{
		ID: "w", Name: "w", File: "w.js", Type: nex.V8, SHA256: sha256Hex(endless), Settings: nex.Settings{Engine: nex.EngineQuickJS},
	}
	sink := guest.Sink{Log: func(slog.Level, string) {}, Lost: func(f guest.Fault) { faults <- f }}
	if err := g.Deploy(t.Context(), d, strings.NewReader(endless), sink); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	const timeout = 50 * time.Millisecond
	start := time.Now()
	g.Invoke(guest.Trigger{ID: "w", Subject: "s", Timeout: timeout}, start.Add(timeout+100*time.Millisecond), true, func(_ guest.Result, err error) { failed <- err })
	if err := nextest.Await(t, failed, "an answer"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the call: %v", err)
	}
	nextest.Await(t, g.Gone(), "the machine's end")
	took := time.Since(start)
	if took < timeout+100*time.Millisecond {
		t.Errorf("the agent gave up after %s", took)
	}
	t.Logf("the machine was gone %s after the deadline", took-timeout)
	if f := nextest.Await(t, faults, "the culprit's name"); f != guest.FaultOwn {
		t.Errorf("fault %d", f)
	}
	if _, alive := processes(t)[pid]; alive {
		t.Error("the agent is alive")
	}
	if err := g.Err(); err == nil || !strings.Contains(err.Error(), "cannot stop") {
		t.Errorf("the link ended with %v", err)
	}
}
