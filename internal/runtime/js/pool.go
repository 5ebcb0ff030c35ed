package js

import (
	"context"
	"fmt"
	"sync"

	"nex"
)

// pool keeps the warm isolates of one function. It makes them on demand, up
// to its size, and hands out the one that was used last, so that memory and
// caches stay hot and the others stay idle.
type pool struct {
	fresh func(context.Context) (Isolate, error)
	slots chan struct{} // one token per isolate that is out

	mu      sync.Mutex
	idle    []Isolate     // guarded by mu
	out     int           // isolates handed out and being made, guarded by mu
	closed  bool          // guarded by mu
	drained chan struct{} // closed once closed and none is out
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
	iso := p.idle[n-1]
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
		p.idle = append(p.idle, iso)
		iso = nil
	}
	p.out--
	last := p.closed && p.out == 0
	p.mu.Unlock()

	if iso != nil {
		iso.Close()
	}
	if last {
		close(p.drained)
	}
	<-p.slots
}

// close frees the idle isolates, and waits until those that are out came back
// and are freed too. When ctx ends first, they are still freed as they come.
func (p *pool) close(ctx context.Context) error {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	if !p.closed && p.out == 0 {
		close(p.drained)
	}
	p.closed = true
	p.mu.Unlock()

	for _, iso := range idle {
		iso.Close()
	}
	select {
	case <-p.drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for running calls: %w", ctx.Err())
	}
}
