package workload

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"nex"
)

// NoLimit leaves it to each function how long its calls may take.
const NoLimit = time.Duration(math.MaxInt64)

var (
	errDraining = nex.Errorf(nex.LameDuck, "Node is in lame duck mode. Workload deploy request denied")
	errClosed   = nex.Errorf(nex.Unavailable, "node is shutting down")
)

// Drain stops all workloads, takes no more, and returns when all are gone.
// Functions end first, for their calls may need the services: they hear no
// more messages, and their calls under way have as long as they may take, but
// no longer than calls. Then the services end, each within its grace. tell is
// called after each that has ended, also by several goroutines at a time.
//
// It is also for what has ended with its node already and would come back with it.
// A second Drain while one is under way hastens it if its calls are shorter.
func (m *Manager) Drain(calls time.Duration, tell func()) {
	m.mu.Lock()
	m.drained = true
	left := slices.Collect(maps.Keys(m.leaving))
	clear(m.leaving)
	m.mu.Unlock()
	for _, id := range left {
		m.cfg.Journal.Ended(id)
	}
	m.end(errDraining, calls, tell)
}

// Close is [Manager.Drain] of a node that ends: its workloads come back with it,
// unless it was being drained.
func (m *Manager) Close(calls time.Duration, tell func()) {
	m.mu.Lock()
	m.closing = true
	m.mu.Unlock()
	m.end(errClosed, calls, tell)
}

func (m *Manager) end(refusal error, calls time.Duration, tell func()) {
	functions, services := m.refuse(refusal)
	for _, some := range [][]*workload{functions, services} {
		var wg sync.WaitGroup
		for _, w := range some {
			wg.Go(func() {
				_ = w.stop(context.Background(), min(calls, w.drain())) // fails only when its context ends
				tell()
			})
		}
		wg.Wait()
	}
}

// refuse takes no more workloads from here on, starts none again, and returns
// those there are.
func (m *Manager) refuse(refusal error) (functions, services []*workload) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refusal, m.lameDuck = refusal, true
	for _, w := range m.byID {
		if w.spec.Type.IsFunction() {
			functions = append(functions, w)
		} else {
			services = append(services, w)
		}
	}
	return functions, services
}

// Left counts the workloads that are not gone, also those that never came up.
func (m *Manager) Left() (functions, services int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.byID {
		if w.spec.Type.IsFunction() {
			functions++
		} else {
			services++
		}
	}
	return functions, services
}

// DrainBound is the longest that [Manager.Drain] takes of the workloads there
// are now.
func (m *Manager) DrainBound(calls time.Duration) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	var functions, services time.Duration
	for _, w := range m.byID {
		if w.spec.Type.IsFunction() {
			functions = max(functions, min(calls, w.drain())+stopFunction)
		} else {
			services = max(services, w.spec.Settings.StopGrace()+stopService)
		}
	}
	return functions + services
}
