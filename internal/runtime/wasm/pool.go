package wasm

import (
	"context"
	"sync"
	"time"

	"nex"
)

const (
	// idleTime is how long an instance that nobody uses is kept.
	idleTime = time.Minute
	// maxIdle is how many bytes the memories of idle instances may have.
	maxIdle = 256 << 20
)

// pool keeps the instances of one function. It makes them on demand, up to its
// size, and hands out the one that was used last, so that caches stay hot and
// the others can be retired.
type pool struct {
	fresh  func(context.Context) (*instance, error)
	renew  func(*instance) *instance // after a call; nil when it is of no more use
	slots  chan struct{}             // one token per instance that is out
	closed chan struct{}             // closed when no further call may start

	mu      sync.Mutex
	idle    []*instance            // the last used is the last
	held    uint64                 // bytes of the idle
	out     map[*instance]struct{} // those that serve calls
	stopped error                  // once set, calls end with it
	retire  *time.Timer            // set while there are idle ones
}

func newPool(size int, fresh func(context.Context) (*instance, error), renew func(*instance) *instance) *pool {
	return &pool{
		fresh: fresh, renew: renew,
		slots: make(chan struct{}, size), closed: make(chan struct{}), out: make(map[*instance]struct{}),
	}
}

// take returns an instance for one call, and waits for one while all are busy.
// Each that it returns must be given back.
func (p *pool) take(ctx context.Context) (*instance, error) {
	select {
	case <-p.closed:
		return nil, errClosed
	default:
	}
	select {
	case p.slots <- struct{}{}:
	case <-p.closed:
		return nil, errClosed
	case <-ctx.Done():
		return nil, nex.Errorf(nex.Overloaded, "all %d instances of the function are busy", cap(p.slots))
	}
	i := p.pop()
	if i == nil {
		var err error
		if i, err = p.fresh(ctx); err != nil {
			<-p.slots
			return nil, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out[i] = struct{}{}
	if p.stopped != nil {
		i.interrupt(p.stopped)
	}
	return i, nil
}

var errClosed = nex.Errorf(nex.Unavailable, "the function is closed")

func (p *pool) pop() *instance {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle) - 1
	if n < 0 {
		return nil
	}
	i := p.idle[n]
	p.idle[n] = nil
	p.idle = p.idle[:n]
	p.held -= i.size()
	return i
}

// give takes back what take returned. If it takes long to make it ready for
// another call, that happens after give has returned, off the caller's way;
// until then its slot is taken.
func (p *pool) give(i *instance) {
	p.mu.Lock()
	delete(p.out, i)
	p.mu.Unlock()
	if i.memory.shared != nil { // then that takes less time than to have it done
		p.settle(i)
		return
	}
	go p.settle(i)
}

// settle makes an instance idle, or closes it.
func (p *pool) settle(i *instance) {
	if i = p.renew(i); i != nil && !p.push(i) {
		i.close()
	}
	<-p.slots
}

// push makes an instance idle, if there is room for it.
func (p *pool) push(i *instance) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.closed:
		return false
	default:
	}
	if p.held+i.size() > maxIdle && len(p.idle) > 0 {
		return false
	}
	i.since = time.Now()
	p.idle = append(p.idle, i)
	p.held += i.size()
	if p.retire == nil {
		p.retire = time.AfterFunc(idleTime, p.sweep)
	}
	return true
}

// sweep closes the instances that were idle for long.
func (p *pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := 0
	for old < len(p.idle) && time.Since(p.idle[old].since) >= idleTime {
		p.held -= p.idle[old].size()
		p.idle[old].close()
		old++
	}
	p.idle = append(p.idle[:0:0], p.idle[old:]...)
	p.retire = nil
	if len(p.idle) > 0 {
		p.retire = time.AfterFunc(idleTime-time.Since(p.idle[0].since), p.sweep)
	}
}

// close lets no further call in and returns when the last one has left and all
// instances are gone. Calls that still run when ctx ends are stopped. It must
// be called once only.
func (p *pool) close(ctx context.Context) {
	close(p.closed)
	for range cap(p.slots) {
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			p.stopAll(nex.Errorf(nex.Unavailable, "the function was closed during the call"))
			p.slots <- struct{}{}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.retire != nil {
		p.retire.Stop()
	}
	for _, i := range p.idle {
		i.close()
	}
	p.idle, p.held = nil, 0
}

func (p *pool) stopAll(cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = cause
	for i := range p.out {
		i.interrupt(cause)
	}
}
