package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/rs/xid"

	"nex"
	"nex/internal/guest"
)

// destroyTimeout bounds how long the end of one machine is waited for.
const destroyTimeout = 10 * time.Second

// pingTimeout is how long an agent may take to give a sign of life if nobody says.
const pingTimeout = 5 * time.Second

// pingEvery is the time between two signs of life that an agent is asked for.
const pingEvery = 5 * time.Second

// Guest is a machine whose agent has said hello, with the link to it.
type Guest struct {
	*guest.Client
	machine Machine
	gone    chan struct{}
}

// ID is the machine's id.
func (g *Guest) ID() string { return g.machine.ID() }

// Gone is closed when the machine is no more and nothing of it is left. It
// follows by itself when the link ends or the machine does.
func (g *Guest) Gone() <-chan struct{} { return g.gone }

// Release destroys the machine and returns when it is gone.
func (g *Guest) Release() {
	g.Close()
	<-g.gone
}

// watch destroys the machine when its link ends and the link when the machine
// does, or when its agent gives no sign of life.
func (g *Guest) watch(ping time.Duration, log *slog.Logger) {
	defer close(g.gone)
	beat := time.NewTicker(pingEvery)
	defer beat.Stop()
	for ended := false; !ended; {
		select {
		case <-g.Done():
			ended = true
		case <-g.machine.Gone():
			g.awaitLastWords()
			ended = true
		case <-beat.C:
			g.Ping(ping)
		}
	}
	if err := g.Err(); !errors.Is(err, guest.ErrClosed) {
		log.Warn("Machine lost", "machine", g.ID(), "cause", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), destroyTimeout)
	defer cancel()
	if err := g.machine.Destroy(ctx); err != nil {
		log.Error("Machine could not be destroyed", "machine", g.ID(), "error", err)
	}
	g.Close()
}

// lastWords is how long what is left on the link of a machine that has ended is
// read.
const lastWords = time.Second

// awaitLastWords waits until the link has found out by itself that the machine
// is gone: then it knows whose fault that may be.
func (g *Guest) awaitLastWords() {
	t := time.NewTimer(lastWords)
	defer t.Stop()
	select {
	case <-g.Done():
	case <-t.C:
	}
}

// PoolConfig says how a [Pool] works.
type PoolConfig struct {
	Launcher Launcher
	Size     int           // machines kept ready; 0 boots each on demand
	Hello    time.Duration // how long an agent may take to say hello
	Ping     time.Duration // how long an agent may take to give a sign of life; 5 s if it is 0
	Log      *slog.Logger
}

// Pool keeps machines ready. Each goes to one taker.
type Pool struct {
	cfg   PoolConfig
	ready chan *Guest
	boots chan struct{}  // a token per machine being booted
	live  sync.WaitGroup // guests, taken or not

	mu      sync.Mutex
	lastErr error // of the latest boot, nil once one succeeds
}

// NewPool makes a pool; [Pool.Run] fills it.
func NewPool(cfg PoolConfig) *Pool {
	cfg.Ping = cmp.Or(cfg.Ping, pingTimeout)
	return &Pool{cfg: cfg, ready: make(chan *Guest), boots: make(chan struct{}, 2*runtime.NumCPU())}
}

// Run keeps the pool filled until ctx ends, then destroys what is ready and
// waits until taken machines have been released.
func (p *Pool) Run(ctx context.Context) {
	var keepers sync.WaitGroup
	for range p.cfg.Size {
		keepers.Go(func() { p.keepOne(ctx) })
	}
	<-ctx.Done()
	keepers.Wait()
	p.live.Wait()
}

// keepOne holds one machine ready at a time, and boots the next when that one
// is taken or lost.
func (p *Pool) keepOne(ctx context.Context) {
	for tries := 0; ctx.Err() == nil; {
		g, err := p.boot(ctx)
		if err != nil {
			if ctx.Err() == nil {
				p.cfg.Log.Warn("Machine did not boot, trying again", "error", err, "in", backoff(tries))
			}
			wait(ctx, backoff(tries))
			tries++
			continue
		}
		select {
		case p.ready <- g:
			tries = 0
		case <-g.Done():
			wait(ctx, backoff(tries))
			tries++
		case <-ctx.Done():
			g.Release()
		}
	}
}

// backoff doubles from 50 ms up to 10 s.
func backoff(tries int) time.Duration {
	return min(50*time.Millisecond<<min(tries, 16), 10*time.Second)
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// boot launches one machine and waits for its agent's hello. Only a few boot
// at a time, so that a large pool does not overrun its host.
func (p *Pool) boot(ctx context.Context) (g *Guest, err error) {
	select {
	case p.boots <- struct{}{}:
		defer func() { <-p.boots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() {
		p.mu.Lock()
		p.lastErr = err
		p.mu.Unlock()
	}()
	id := xid.New().String()
	m, err := p.cfg.Launcher.Launch(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("launch machine %s: %w", id, err)
	}
	hello, cancel := context.WithTimeout(ctx, p.cfg.Hello)
	defer cancel()
	c, err := guest.Greet(hello, m.Link())
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("greet machine %s: %w", id, err), m.Destroy(ctx))
	}
	g = &Guest{Client: c, machine: m, gone: make(chan struct{})}
	p.live.Go(func() { g.watch(p.cfg.Ping, p.cfg.Log) })
	p.cfg.Log.Debug("Machine ready", "machine", id, "agent_version", c.Hello().Version)
	return g, nil
}

// Take hands out a ready machine, waiting for one until ctx ends. The taker
// must Release it.
func (p *Pool) Take(ctx context.Context) (*Guest, error) {
	if p.cfg.Size == 0 {
		return p.boot(ctx)
	}
	for ctx.Err() == nil {
		select {
		case g := <-p.ready:
			if g.Err() == nil {
				return g, nil
			}
		case <-ctx.Done():
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lastErr != nil {
		return nil, nex.Errorf(nex.Unavailable, "no machine became ready: %v", p.lastErr)
	}
	return nil, nex.Errorf(nex.Unavailable, "no machine became ready in time")
}
