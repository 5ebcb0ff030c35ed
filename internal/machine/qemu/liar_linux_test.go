package qemu_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"nex"
	"nex/internal/cgroup"
	"nex/internal/guest"
	"nex/internal/machine"
	"nex/internal/nextest"
	"nex/internal/nextest/liar"
)

// TestLiars: a microVM whose own init lies is destroyed, whatever the lie, with all
// there is of it, and its neighbour works on. Those that lie instead of their hello are
// left to the other launchers' test.
func TestLiars(t *testing.T) {
	groups, _ := cgroup.Open() // nil where there are none
	t.Cleanup(groups.Close)
	dir := t.TempDir()
	honest := poolOf(t, launcher(t, t.TempDir(), groups, nextest.StaticAgent(t)))
	liars := poolOf(t, launcher(t, dir, groups, nextest.LiarInit(t)))
	neighbour := taken(t, honest)
	defer neighbour.Release()
	deployScript(t, neighbour, []byte(`(subject, payload) => payload`))
	for _, lie := range liar.Lies() {
		if lie.Early {
			continue
		}
		t.Run(lie.Name, func(t *testing.T) {
			g := taken(t, liars)
			deployScript(t, g, liar.Artifact(lie.Name))
			if err := called(t, g, time.Second); err == nil {
				t.Error("the call came back well")
			}
			select {
			case <-g.Gone():
			case <-time.After(bootTime):
				t.Fatal("the machine goes on")
			}
			if err := called(t, neighbour, nextest.Patience); err != nil {
				t.Errorf("a neighbour's call: %v", err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("%v are left, %v", left, err)
			}
		})
	}
}

func poolOf(t *testing.T, l machine.Launcher) *machine.Pool {
	p := machine.NewPool(machine.PoolConfig{Launcher: l, Hello: bootTime, Ping: 2 * time.Second, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); nextest.Await(t, done, "the pool to end") })
	return p
}

func taken(t *testing.T, p *machine.Pool) *machine.Guest {
	t.Helper()
	g, err := p.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func deployScript(t *testing.T, g *machine.Guest, artifact []byte) {
	t.Helper()
	sum := sha256.Sum256(artifact)
	d := guest.Deploy{
		ID: "w", Name: "w", File: "w.js", Type: nex.V8, SHA256: hex.EncodeToString(sum[:]),
		Settings: nex.Settings{Engine: nex.EngineQuickJS, FunctionMemoryMiB: 128},
	}
	sink := guest.Sink{
		Log: func(slog.Level, string) {},
		Host: func(context.Context, guest.HostCall) (guest.Message, error) {
			return guest.Message{}, nex.Errorf(nex.Invalid, "no")
		},
	}
	if err := g.Deploy(t.Context(), d, strings.NewReader(string(artifact)), sink); err != nil {
		t.Fatal(err)
	}
}

// called calls the workload of a machine, and returns what came of it.
func called(t *testing.T, g *machine.Guest, within time.Duration) error {
	t.Helper()
	answer := make(chan error, 1)
	g.Invoke(guest.Trigger{ID: "w", Timeout: within}, time.Now().Add(within), true, func(_ guest.Result, err error) { answer <- err })
	return nextest.Await(t, answer, "an answer")
}
