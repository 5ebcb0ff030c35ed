package hostsvc

import (
	"context"
	"sync"

	"nex"
)

var (
	errStopped = nex.Errorf(nex.Unavailable, "host services of this workload have ended")
	errCrowded = nex.Errorf(nex.Overloaded, "too many calls of this workload are under way")
)

// gate knows what is under way, to end it and wait for that.
type gate struct {
	limit int // of what may be under way, 0 for none

	mu     sync.Mutex
	closed bool
	last   int
	inside map[int]context.CancelCauseFunc
	gone   sync.WaitGroup
}

// enter begins something. Its context ends with ctx, with leave and when the
// gate is closed.
func (g *gate) enter(ctx context.Context) (inner context.Context, leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return nil, nil, errStopped
	case g.limit > 0 && len(g.inside) >= g.limit:
		return nil, nil, errCrowded
	}
	inner, cancel := context.WithCancelCause(ctx)
	if g.inside == nil {
		g.inside = map[int]context.CancelCauseFunc{}
	}
	g.last++
	id := g.last
	g.inside[id] = cancel
	g.gone.Add(1)
	return inner, func() { g.leave(id) }, nil
}

func (g *gate) leave(id int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside[id](nil)
	delete(g.inside, id)
	g.gone.Done()
}

// close ends everything under way and waits for it. Nothing enters any more.
func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	for _, cancel := range g.inside {
		cancel(errStopped)
	}
	g.mu.Unlock()
	g.gone.Wait()
}
