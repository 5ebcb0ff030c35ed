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
		l.Fail = func() error { return errors.New("no more memory") }
		var told []time.Duration
		p := machine.NewPool(machine.PoolConfig{
			Launcher: l, Size: 1, Hello: time.Second, Log: slog.New(slog.DiscardHandler),
			Failed: func(err error, in time.Duration) {
				if !strings.Contains(err.Error(), "no more memory") {
					t.Errorf("failed with %v", err)
				}
				told = append(told, in)
			},
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		p.Run(ctx)
		if n := len(told); n < 5 || n > 20 || told[0] != 50*time.Millisecond || told[n-1] != 10*time.Second {
			t.Errorf("boots were tried again after %v", told)
		}
		if _, err := p.Take(t.Context()); nex.CodeOf(err) != nex.Unavailable || !strings.Contains(err.Error(), "no more memory") {
			t.Errorf("got %v", err)
		}
	})
}

// TestBurst: more are wanted at once than are kept ready.
func TestBurst(t *testing.T) {
	l := fake()
	p := machine.NewPool(machine.PoolConfig{Launcher: l, Size: 2, Max: 5, Hello: nextest.Patience, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	guests := make(chan *machine.Guest, 5)
	for range 5 {
		go func() {
			g, err := p.Take(t.Context())
			if err != nil {
				t.Error(err)
			}
			guests <- g
		}()
	}
	var taken []*machine.Guest
	for range 5 {
		taken = append(taken, nextest.Await(t, guests, "a machine"))
	}
	if _, err := p.Take(t.Context()); nex.CodeOf(err) != nex.Exhausted || !strings.Contains(err.Error(), "has 5 machines") {
		t.Errorf("one more: %v", err)
	}
	if n := len(l.Booted()); n != 5 {
		t.Errorf("%d machines were booted", n)
	}
	taken[0].Release()
	g, err := p.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range append(taken[1:], g) {
		g.Release()
	}
	cancel()
	nextest.Await(t, done, "the pool to end")
	for _, m := range l.Booted() {
		nextest.Await(t, m.Gone(), "a machine's end")
	}
}

// TestFailedBootTakesNoPlace, however often it fails.
func TestFailedBootTakesNoPlace(t *testing.T) {
	l := fake()
	var fail atomic.Bool
	l.Fail = func() error {
		if fail.Load() {
			return errors.New("no more memory")
		}
		return nil
	}
	p := machine.NewPool(machine.PoolConfig{Launcher: l, Max: 1, Hello: nextest.Patience, Log: slog.New(slog.DiscardHandler)})
	fail.Store(true)
	for range 3 {
		if _, err := p.Take(t.Context()); nex.CodeOf(err) != nex.Unavailable {
			t.Fatal(err)
		}
	}
	fail.Store(false)
	for range 3 {
		g, err := p.Take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		g.Release()
	}
}

func TestAgentsThatSayNothingAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := fake()
		l.Silent = true
		p := machine.NewPool(machine.PoolConfig{Launcher: l, Size: 0, Hello: 5 * time.Second, Log: slog.New(slog.DiscardHandler)})
		if _, err := p.Take(t.Context()); nex.CodeOf(err) != nex.Unavailable || !strings.Contains(err.Error(), "deadline exceeded") {
			t.Errorf("got %v", err)
		}
		for _, m := range l.Booted() {
			<-m.Gone()
		}
	})
}

// TestClockIsToldAtOnce and then again and again: a guest's own may be wrong from
// the start, and stands still while the guest does.
func TestClockIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told := make(chan time.Time, 10)
		l := fake()
		l.Clock = func(now time.Time) { told <- now }
		begin := time.Now()
		g, err := fill(t, l, 0).Take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer g.Release()
		for _, after := range []time.Duration{0, 5 * time.Second, 10 * time.Second} {
			if now := nextest.Await(t, told, "the time"); !now.Equal(begin.Add(after)) || time.Since(begin) != after {
				t.Errorf("told %s after %s, want %s", now, time.Since(begin), begin.Add(after))
			}
		}
	})
}

// TestMachinesThatDieInThePool are told of. Those that die at once are replaced later and
// later, but not those that had been ready for long.
func TestMachinesThatDieInThePool(t *testing.T) {
	for _, c := range []struct {
		ready, most time.Duration
	}{{time.Millisecond, 10 * time.Second}, {time.Hour, 50 * time.Millisecond}} {
		t.Run(c.ready.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := fake()
				var told []time.Duration
				p := machine.NewPool(machine.PoolConfig{
					Launcher: l, Size: 1, Hello: time.Second, Log: slog.New(slog.DiscardHandler),
					Failed: func(err error, in time.Duration) {
						if !strings.Contains(err.Error(), "lost before it was used") {
							t.Errorf("failed with %v", err)
						}
						told = append(told, in)
					},
				})
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() { p.Run(ctx); close(done) }()
				for n := range 10 {
					for synctest.Wait(); len(l.Booted()) == n; synctest.Wait() {
						time.Sleep(50 * time.Millisecond)
					}
					time.Sleep(c.ready)
					l.Booted()[n].Crash()
				}
				synctest.Wait()
				cancel()
				<-done
				if len(told) != 10 || told[9] != c.most {
					t.Errorf("machines were replaced after %v, want %s in the end", told, c.most)
				}
			})
		})
	}
}
