package machine_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"nex"
	"nex/internal/guest"
	"nex/internal/machine"
	"nex/internal/nextest"
)

func TestMain(m *testing.M) { nextest.Main(m) }

// idle is an agent that has nothing to do.
type idle struct{}

func (idle) Put(context.Context, string, []byte) error  { return nil }
func (idle) Deploy(context.Context, guest.Deploy) error { return nil }
func (idle) Undeploy(context.Context, string) error     { return nil }
func (idle) Probe(context.Context, guest.Probe) error   { return nil }
func (idle) Invoke(context.Context, guest.Trigger) (guest.Result, error) {
	return guest.Result{}, nil
}

// fill runs a pool until the test ends.
func fill(t *testing.T, l machine.Launcher, size int) *machine.Pool {
	t.Helper()
	p := machine.NewPool(machine.PoolConfig{Launcher: l, Size: size, Hello: nextest.Patience, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); nextest.Await(t, done, "the pool to end") })
	return p
}

func fake() *nextest.FakeLauncher {
	return &nextest.FakeLauncher{Handler: func(string) guest.Handler { return idle{} }}
}

func TestTakeGivesEachMachineOnce(t *testing.T) {
	p := fill(t, fake(), 4)
	var mu sync.Mutex
	seen := map[string]bool{}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			g, err := p.Take(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer g.Release()
			mu.Lock()
			defer mu.Unlock()
			if seen[g.ID()] {
				t.Errorf("machine %s was handed out twice", g.ID())
			}
			seen[g.ID()] = true
		})
	}
	wg.Wait()
}

func TestPoolOfNoneBootsOnDemand(t *testing.T) {
	l := fake()
	p := fill(t, l, 0)
	if n := len(l.Booted()); n != 0 {
		t.Fatalf("%d machines booted before any was wanted", n)
	}
	g, err := p.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	g.Release()
}

func TestLostMachinesAreReplacedInThePool(t *testing.T) {
	l := fake()
	p := fill(t, l, 1)
	first, err := p.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Release()
	for _, m := range l.Booted() {
		m.Crash()
	}
	nextest.Await(t, first.Gone(), "the taken machine's end to be noticed")
	second, err := p.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Release()
	select {
	case <-second.Gone():
		t.Error("a machine that was lost in the pool was handed out")
	default:
	}
}

func TestFailedBootsBackOffAndAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := fake()
		var tries atomic.Int64
		l.Fail = func() error { tries.Add(1); return errors.New("no more memory") }
		p := machine.NewPool(machine.PoolConfig{Launcher: l, Size: 1, Hello: time.Second, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { p.Run(ctx); close(done) }()
		wait, stop := context.WithTimeout(ctx, time.Minute)
		defer stop()
		_, err := p.Take(wait)
		if nex.CodeOf(err) != nex.Unavailable || !strings.Contains(err.Error(), "no more memory") {
			t.Errorf("got %v", err)
		}
		if n := tries.Load(); n < 5 || n > 20 {
			t.Errorf("%d boots were tried in a minute", n)
		}
		cancel()
		<-done
	})
}

func TestAgentsThatSayNothingAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := fake()
		l.Silent = true
		p := machine.NewPool(machine.PoolConfig{Launcher: l, Size: 0, Hello: 5 * time.Second, Log: slog.New(slog.DiscardHandler)})
		if _, err := p.Take(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		for _, m := range l.Booted() {
			<-m.Gone()
		}
	})
}
