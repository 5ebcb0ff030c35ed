package machine_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"nex"
	"nex/internal/guest"
	"nex/internal/machine"
	"nex/internal/nextest"
	"nex/internal/nextest/liar"
)

// TestLiars: a machine whose agent lies is destroyed, whatever the lie, with all
// there is of it, and its neighbours work on.
func TestLiars(t *testing.T) {
	for name, link := range links {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agents := plain(t)
			agents.Dir, agents.Log = t.TempDir(), slog.New(slog.DiscardHandler)
			overLies(t, link(agents), agents.Dir, func(lie string) {
				if err := nextest.LieNext(agents.Agent, lie); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
	t.Run("fake", func(t *testing.T) {
		t.Parallel()
		f := fake()
		overLies(t, f, t.TempDir(), func(lie string) {
			f.Agent = func(ctx context.Context, link net.Conn) { _ = liar.Tell(ctx, lie, link) } // how it ends is its own affair
		})
	})
}

// overLies has machines of a launcher lie, one after the other.
func overLies(t *testing.T, l machine.Launcher, dir string, lieNext func(lie string)) {
	p := machine.NewPool(machine.PoolConfig{Launcher: l, Hello: helloTimeout(l), Ping: time.Second, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); nextest.Await(t, done, "the pool to end") })
	neighbour, err := p.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer neighbour.Release()
	deployTo(t, neighbour, `(subject, payload) => payload`)
	for _, lie := range liar.Lies() {
		t.Run(lie.Name, func(t *testing.T) {
			lieNext(lie.Name)
			if lie.Early {
				if g, err := p.Take(t.Context()); err == nil {
					g.Release()
					t.Error("a machine is ready")
				}
			} else {
				lied(t, p)
			}
			if r := <-invoke(neighbour, nil, nextest.Patience); r.err != nil {
				t.Errorf("a neighbour's call: %v", r.err)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 1 { // the neighbour's
				t.Errorf("%v are left, %v", left, err)
			}
		})
	}
}

// helloTimeout is how long an agent may take to say hello: a liar is found out by
// it, but an honest process takes a while.
func helloTimeout(l machine.Launcher) time.Duration {
	if _, ok := l.(*nextest.FakeLauncher); ok {
		return 300 * time.Millisecond
	}
	return 5 * time.Second
}

func deployTo(t *testing.T, g *machine.Guest, script string) {
	t.Helper()
	d := guest.Deploy{
		ID: "w", Name: "w", File: "w.js", Type: nex.V8, SHA256: sha256Hex(script),
		Settings: nex.Settings{Engine: nex.EngineQuickJS, FunctionMemoryMiB: 128},
	}
	sink := guest.Sink{
		Log: func(slog.Level, string) {},
		Host: func(context.Context, guest.HostCall) (guest.Message, error) {
			return guest.Message{}, nex.Errorf(nex.Invalid, "no")
		},
	}
	if err := g.Deploy(t.Context(), d, strings.NewReader(script), sink); err != nil {
		t.Fatal(err)
	}
}

// lied calls a workload on the next machine, which lies.
func lied(t *testing.T, p *machine.Pool) {
	t.Helper()
	g, err := p.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	deployTo(t, g, `() => "never"`)
	answers := make(chan error, 2)
	g.Invoke(guest.Trigger{ID: "w", Timeout: time.Second}, time.Now().Add(time.Second), true, func(_ guest.Result, err error) { answers <- err })
	if err := nextest.Await(t, answers, "an answer"); err == nil || nex.CodeOf(err) == nex.Internal && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the call ended with %v", err)
	}
	nextest.Await(t, g.Gone(), "the machine's end")
	if len(answers) > 0 {
		t.Error("the call is answered twice")
	}
}
