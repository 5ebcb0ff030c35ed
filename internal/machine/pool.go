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

// lasting is how long a machine of the pool must have been ready for its loss to be
// no failure of its boot.
const lasting = time.Minute

// pingEvery is the time between two signs of life that an agent is asked for.
const pingEvery = 5 * time.Second

// Guest is a machine whose agent has said hello, with the link to it.
type Guest struct {
	*guest.Client
	machine Machine
	limited chan *limits // what watch is to look at, from then on
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
	g.awaitEnd(ping)
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

// awaitEnd returns when the link has ended. Until then it asks the agent for
// signs of life, at once for the first time, since that sets the clock of a guest
// that has its own; and looks whether limits are met, if there are any.
func (g *Guest) awaitEnd(ping time.Duration) {
	g.Ping(ping)
	beat := time.NewTicker(pingEvery)
	defer beat.Stop()
	tick := time.NewTicker(lookAtLimits)
	defer tick.Stop()
	tick.Stop() // there is nothing to look at yet
	var l *limits
	for {
		select {
		case <-g.Done():
			return
		case <-g.machine.Gone():
			g.awaitLastWords()
			return
		case l = <-g.limited:
			tick.Reset(lookAtLimits)
		case <-beat.C:
			g.Ping(ping)
		case <-tick.C:
			l.look(time.Now())
		}
	}
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

// noMax is more machines than a host can have processes.
const noMax = 1 << 22

// PoolConfig says how a [Pool] works.
type PoolConfig struct {
	Launcher Launcher
	Size     int           // machines kept ready; 0 boots each on demand
	Max      int           // machines at once, ready ones among them; 0 for any number
	Hello    time.Duration // how long an agent may take to say hello
	Ping     time.Duration // how long an agent may take to give a sign of life; 5 s if it is 0
	// Failed hears of a boot that failed while the pool was being filled, or of a
	// machine that was lost in the pool, and when another is booted. May be nil.
	Failed func(err error, in time.Duration)
	Log    *slog.Logger
}

// Pool keeps machines ready. Each goes to one taker.
type Pool struct {
	cfg   PoolConfig
	ready chan *Guest
	boots chan struct{}  // a token per machine being booted
	room  chan struct{}  // a token per machine
	live  sync.WaitGroup // guests, taken or not
}

// NewPool makes a pool; [Pool.Run] fills it.
func NewPool(cfg PoolConfig) *Pool {
	cfg.Ping = cmp.Or(cfg.Ping, pingTimeout)
	return &Pool{
		cfg: cfg, ready: make(chan *Guest), boots: make(chan struct{}, 2*runtime.NumCPU()),
		room: make(chan struct{}, cmp.Or(cfg.Max, noMax)),
	}
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

// headStart is how long the processors are the taker's, whose workload starts in
// a ready machine, before the next is booted: at once, it took half of them and
// the first reply came twice as late. Who finds none ready boots one without it.
const headStart = 100 * time.Millisecond

// keepOne holds one machine ready at a time, and boots the next when that one
// is taken or lost.
func (p *Pool) keepOne(ctx context.Context) {
	for tries := 0; ctx.Err() == nil; {
		select {
		case p.room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		g, err := p.boot(ctx)
		if err != nil {
			if ctx.Err() == nil {
				p.failed(err, backoff(tries))
			}
			wait(ctx, backoff(tries))
			tries++
			continue
		}
		booted := time.Now()
		select {
		case p.ready <- g:
			tries = 0
			wait(ctx, headStart)
		case <-g.Done():
			if time.Since(booted) > lasting {
				tries = 0
			}
			if ctx.Err() != nil {
				return
			}
			p.failed(fmt.Errorf("machine %s was lost before it was used: %w", g.ID(), g.Err()), backoff(tries))
			wait(ctx, backoff(tries))
			tries++
		case <-ctx.Done():
			g.Release()
		}
	}
}

func (p *Pool) failed(err error, in time.Duration) {
	p.cfg.Log.Warn("Machine did not get or stay ready, trying again", "error", err, "in", in)
	if p.cfg.Failed != nil {
		p.cfg.Failed(err, in)
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

// boot launches one machine and waits for its agent's hello. The caller has
// taken a place in room for it. Only a few boot at a time, so that a large pool
// does not overrun its host.
func (p *Pool) boot(ctx context.Context) (g *Guest, err error) {
	defer func() {
		if err != nil {
			p.leave()
		}
	}()
	select {
	case p.boots <- struct{}{}:
		defer func() { <-p.boots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
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
	g = &Guest{Client: c, machine: m, limited: make(chan *limits), gone: make(chan struct{})}
	p.live.Go(func() {
		g.watch(p.cfg.Ping, p.cfg.Log)
		p.leave()
	})
	p.cfg.Log.Debug("Machine ready", "machine", id, "agent_version", c.Hello().Version)
	return g, nil
}

// roomWait is how long a taker waits when there are as many machines as there
// may be.
const roomWait = time.Second

// leave gives a machine's place in room back.
func (p *Pool) leave() { <-p.room }

// Take hands out a ready machine, or boots one for the taker when none is ready.
// When there are as many as there may be it waits a moment for one of them to
// become ready or to go. The taker must Release it.
func (p *Pool) Take(ctx context.Context) (*Guest, error) {
	patience := time.NewTimer(roomWait)
	defer patience.Stop()
	for {
		select { // one that is ready rather than one to come
		case g := <-p.ready:
			if g.Err() == nil {
				return g, nil
			}
			continue
		default:
		}
		select {
		case g := <-p.ready:
			if g.Err() == nil {
				return g, nil
			}
		case p.room <- struct{}{}:
			g, err := p.boot(ctx)
			if err != nil {
				err = nex.Errorf(nex.Unavailable, "no machine became ready: %v", err)
			}
			return g, err
		case <-patience.C:
			return nil, nex.Errorf(nex.Exhausted, "the node has %d machines, as many as it may have (max_machines)", p.cfg.Max)
		case <-ctx.Done():
			return nil, nex.Errorf(nex.Unavailable, "no machine became ready in time")
		}
	}
}
