package js

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"nex"
)

// maxIdle is how long an isolate stays that no call needs.
const maxIdle = 30 * time.Second

// pool keeps the warm isolates of one function. It makes them on demand, up
// to its size, and hands out the one that was used last, so that memory and
// caches stay hot and the others stay idle. Those it frees after a while, all
// but one.
type pool struct {
	fresh func(context.Context) (Isolate, error)
	slots chan struct{} // one token per isolate that is out

	mu      sync.Mutex
	idle    []idle        // the last used at the end; guarded by mu
	out     int           // isolates handed out, being made and being retired, guarded by mu
	closed  bool          // guarded by mu
	sweeper *time.Timer   // calls retire, while more than one isolate is idle; guarded by mu
	drained chan struct{} // closed once closed and none is out
}

// idle is an isolate that waits for a call.
type idle struct {
	Isolate
	since time.Time
}

func newPool(size int, fresh func(context.Context) (Isolate, error)) *pool {
	return &pool{fresh: fresh, slots: make(chan struct{}, size), drained: make(chan struct{})}
}

// take returns an isolate for one call, and waits for one while all are out.
// Each that it returns must be given back.
func (p *pool) take(ctx context.Context) (_ Isolate, err error) {
	if ctx.Err() != nil {
		return nil, ErrStopped
	}
	select {
	case p.slots <- struct{}{}:
	default:
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, nex.Errorf(nex.Overloaded, "no isolate became free before the deadline: %d calls are running", cap(p.slots))
		}
	}
	iso, err := p.begin()
	if err != nil {
		<-p.slots
		return nil, err
	}
	if iso != nil {
		return iso, nil
	}
	made := false
	defer func() {
		if !made {
			p.end(nil)
		}
	}()
	if iso, err = p.fresh(ctx); err != nil {
		return nil, err
	}
	made = true
	return iso, nil
}

// begin counts one isolate out and returns it, or nil when none is idle.
func (p *pool) begin() (Isolate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nex.Errorf(nex.Unavailable, "the function is closed")
	}
	p.out++
	n := len(p.idle)
	if n == 0 {
		return nil, nil
	}
	iso := p.idle[n-1].Isolate
	p.idle = p.idle[:n-1]
	return iso, nil
}

// give takes back what take returned, and closes it when it cannot be used
// again.
func (p *pool) give(iso Isolate) {
	if !iso.Usable() {
		iso.Close()
		iso = nil
	}
	p.end(iso)
}

// end counts one isolate in. It is nil when it is gone.
func (p *pool) end(iso Isolate) {
	p.mu.Lock()
	if iso != nil && !p.closed {
		p.idle = append(p.idle, idle{iso, time.Now()})
		p.watch()
		iso = nil
	}
	p.mu.Unlock()

	if iso != nil {
		iso.Close()
	}
	p.returned(1)
	<-p.slots
}

// returned counts n isolates in.
func (p *pool) returned(n int) {
	p.mu.Lock()
	p.out -= n
	last := p.closed && p.out == 0
	p.mu.Unlock()
	if last {
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
	p.out += n
	p.sweeper = nil
	p.watch()
	p.mu.Unlock()

	for _, iso := range old {
		iso.Close()
	}
	if n > 0 {
		p.returned(n)
	}
}

// close frees the idle isolates, and waits until those that are out came back
// and are freed too. When ctx ends first, they are still freed as they come.
func (p *pool) close(ctx context.Context) error {
	p.mu.Lock()
	left := p.idle
	p.idle = nil
	if p.sweeper != nil {
		p.sweeper.Stop()
	}
	if !p.closed && p.out == 0 {
		close(p.drained)
	}
	p.closed = true
	p.mu.Unlock()

	for _, iso := range left {
		iso.Close()
	}
	select {
	case <-p.drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for running calls: %w", ctx.Err())
	}
}
