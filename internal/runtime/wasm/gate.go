package wasm

import (
	"context"
	"sync"

	"nex"
)

// gate bounds how many calls run at once and can stop them all.
type gate struct {
	slots  chan struct{} // holds one token for each running call
	closed chan struct{} // closed when no further call may start

	mu      sync.Mutex
	stopped error                // once set, every call ends with it; guarded by mu
	running map[*ticket]struct{} // guarded by mu
}

// ticket is the right to run one call.
type ticket struct {
	stop context.CancelCauseFunc // ends the call; a [nex.Error] as cause becomes its result
}

func newGate(n int) *gate {
	return &gate{
		slots:   make(chan struct{}, n),
		closed:  make(chan struct{}),
		running: make(map[*ticket]struct{}),
	}
}

// enter waits for a free slot. The call runs under the returned context and
// gives its ticket back to leave.
func (g *gate) enter(ctx context.Context) (context.Context, *ticket, error) {
	select {
	case g.slots <- struct{}{}:
	case <-g.closed:
		return nil, nil, nex.Errorf(nex.Unavailable, "the function is closed")
	case <-ctx.Done():
		return nil, nil, nex.Errorf(nex.Overloaded, "all %d instances of the function are busy", cap(g.slots))
	}
	ctx, stop := context.WithCancelCause(ctx)
	t := &ticket{stop: stop}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running[t] = struct{}{}
	if g.stopped != nil {
		stop(g.stopped)
	}
	return ctx, t, nil
}

func (g *gate) leave(t *ticket) {
	t.stop(nil)
	g.mu.Lock()
	delete(g.running, t)
	g.mu.Unlock()
	<-g.slots
}

// shut lets no further call in and returns when the last one has left. Those
// that still run when ctx ends are stopped. It must be called once only.
func (g *gate) shut(ctx context.Context) {
	close(g.closed)
	for range cap(g.slots) {
		select {
		case g.slots <- struct{}{}:
		case <-ctx.Done():
			g.stopAll(nex.Errorf(nex.Unavailable, "the function was closed during the call"))
			g.slots <- struct{}{}
		}
	}
}

func (g *gate) stopAll(cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = cause
	for t := range g.running {
		t.stop(cause)
	}
}
