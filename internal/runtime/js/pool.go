package js

import (
	"context"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"time"

	"nex"
)

// maxIdle is how long an isolate stays that no call needs.
const maxIdle = 30 * time.Second

// pool keeps the rooms of one function: its warm isolates and the calls in
// them. It makes them on demand, up to its size. A call gets the isolate that
// was used last, so that memory and caches stay hot and the others stay idle;
// else a new one; else it comes to others that wait. Isolates that are idle for
// a while are freed, all but one.
type pool struct {
	fresh func(ctx context.Context, wake func(int)) (Isolate, error)
	size  int

	mu      sync.Mutex
	rooms   []*room       // all that have an isolate, guarded by mu
	idle    []*room       // those without calls, the last used at the end; guarded by mu
	count   int           // rooms, also those that are being made and closed; guarded by mu
	line    []*caller     // calls for which there is no room, guarded by mu
	closed  bool          // guarded by mu
	sweeper *time.Timer   // calls retire, while more than one isolate is idle; guarded by mu
	drained chan struct{} // closed once closed and there are no rooms
}

// caller is a call that found all isolates busy.
type caller struct {
	got chan offer // has room for it
}

// offer is what a caller gets: the turn in a room, or that it may make one, or
// an error.
type offer struct {
	room *room
	err  error
}

func newPool(size int, fresh func(context.Context, func(int)) (Isolate, error)) *pool {
	return &pool{fresh: fresh, size: size, drained: make(chan struct{})}
}

// take returns a room in which the call has the turn, and waits for one while
// code runs in all of them. [room.give] must follow.
func (p *pool) take(ctx context.Context) (*room, error) {
	if ctx.Err() != nil {
		return nil, ErrStopped
	}
	p.mu.Lock()
	o, ok := p.find()
	if ok {
		p.mu.Unlock()
		return p.accept(ctx, o)
	}
	c := &caller{got: make(chan offer, 1)}
	p.line = append(p.line, c)
	p.mu.Unlock()
	select {
	case o := <-c.got:
		return p.accept(ctx, o)
	case <-ctx.Done():
		p.giveUp(c)
		return nil, nex.Errorf(nex.Overloaded, "no isolate became free before the deadline: calls keep all %d busy", p.size)
	}
}

// find returns the best that there is for a call. The pool is locked.
func (p *pool) find() (_ offer, ok bool) {
	if p.closed {
		return offer{err: nex.Errorf(nex.Unavailable, "the function is closed")}, true
	}
	if n := len(p.idle); n > 0 {
		r := p.idle[n-1]
		p.idle = p.idle[:n-1]
		r.enter()
		return offer{room: r}, true
	}
	if p.count < p.size {
		p.count++
		return offer{}, true
	}
	var best *room // where the fewest wait
	for _, r := range p.rooms {
		if r.open() && (best == nil || bits.OnesCount64(r.present) < bits.OnesCount64(best.present)) {
			best = r
		}
	}
	if best == nil {
		return offer{}, false
	}
	best.enter()
	return offer{room: best}, true
}

// accept returns the room of an offer, which it makes where there is none yet.
func (p *pool) accept(ctx context.Context, o offer) (*room, error) {
	if o.room != nil || o.err != nil {
		return o.room, o.err
	}
	r, made := &room{pool: p}, false
	defer func() {
		if !made {
			p.gone(1)
		}
	}()
	iso, err := p.fresh(ctx, r.wake)
	if err != nil {
		return nil, err
	}
	made = true
	p.mu.Lock()
	defer p.mu.Unlock()
	r.Isolate = iso
	p.rooms = append(p.rooms, r)
	r.enter()
	return r, nil
}

// giveUp takes a caller out of the line, and passes on what it was offered.
func (p *pool) giveUp(c *caller) {
	p.mu.Lock()
	if n := slices.Index(p.line, c); n >= 0 {
		p.line = slices.Delete(p.line, n, n+1)
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	switch o := <-c.got; {
	case o.room != nil:
		o.room.give(Step{}, nil)
	case o.err == nil:
		p.gone(1)
	}
}

// serve makes offers to those in the line, as long as there is something for
// them. The pool is locked.
func (p *pool) serve() {
	for len(p.line) > 0 {
		o, ok := p.find()
		if !ok {
			return
		}
		p.line[0].got <- o
		p.line = slices.Delete(p.line, 0, 1)
	}
}

// rest puts r, which no call is in, to the idle ones. It reports false when r
// is to be closed instead. The pool is locked.
func (p *pool) rest(r *room) bool {
	if r.closing || p.closed {
		return false
	}
	r.since = time.Now()
	p.idle = append(p.idle, r)
	p.serve()
	p.watch()
	return true
}

// forget takes rooms out of the pool that are then closed, and that gone counts
// afterwards. The pool is locked.
func (p *pool) forget(rooms ...*room) {
	p.rooms = slices.DeleteFunc(p.rooms, func(r *room) bool { return slices.Contains(rooms, r) })
}

// gone counts n rooms out.
func (p *pool) gone(n int) {
	p.mu.Lock()
	p.count -= n
	p.serve()
	last := p.closed && p.count == 0
	p.mu.Unlock()
	if last && n > 0 {
		close(p.drained)
	}
}

// watch sees that isolates are retired when it is time. The pool is locked.
func (p *pool) watch() {
	if p.sweeper == nil && len(p.idle) > 1 {
		p.sweeper = time.AfterFunc(time.Until(p.idle[0].since.Add(maxIdle)), p.retire)
	}
}

// retire frees the isolates that were idle for too long, but not the last one.
func (p *pool) retire() {
	p.mu.Lock()
	n := 0
	for n < len(p.idle)-1 && time.Since(p.idle[n].since) >= maxIdle {
		n++
	}
	old := slices.Clone(p.idle[:n])
	p.idle = slices.Delete(p.idle, 0, n)
	p.forget(old...)
	p.sweeper = nil
	p.watch()
	p.mu.Unlock()

	for _, r := range old {
		r.close()
	}
	p.gone(n)
}

// close frees the idle isolates, and waits until those with calls are free of
// them and are freed too. When ctx ends first, they are still freed then.
func (p *pool) close(ctx context.Context) error {
	p.mu.Lock()
	left := p.idle
	p.idle = nil
	p.forget(left...)
	if p.sweeper != nil {
		p.sweeper.Stop()
	}
	if !p.closed && p.count == 0 {
		close(p.drained)
	}
	p.closed = true
	p.serve()
	p.mu.Unlock()

	for _, r := range left {
		r.close()
	}
	p.gone(len(left))
	select {
	case <-p.drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for running calls: %w", ctx.Err())
	}
}
