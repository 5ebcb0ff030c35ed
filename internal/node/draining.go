package node

import (
	"context"
	"sync"
	"time"

	"nex"
	"nex/internal/workload"
)

const (
	// lastCalls is the most that function calls under way have to end when the
	// node does; a shorter timeout of theirs goes before it. Nobody who drains a
	// node by request is in such a hurry.
	lastCalls = 10 * time.Second
	// tellDrain is the least time between two reports of a drain's progress.
	tellDrain = time.Second
	// stopSlack is what the end of a node takes besides its workloads.
	stopSlack = 15 * time.Second
)

// draining is what a node knows of its drain.
type draining struct {
	once sync.Once // of the drain by request
	wg   sync.WaitGroup

	mu    sync.Mutex
	on    bool
	done  bool
	told  time.Time
	later *time.Timer // reports what was too soon to report; nil while nothing is
}

// progress is how far the drain is, nil when there is none.
func (n *node) progress() *nex.DrainProgress {
	n.drain.mu.Lock()
	defer n.drain.mu.Unlock()
	if !n.drain.on {
		return nil
	}
	p := n.progressLocked()
	return &p
}

func (n *node) progressLocked() nex.DrainProgress {
	p := nex.DrainProgress{Done: n.drain.done}
	p.Functions, p.Services = n.workloads.Left()
	return p
}

// startDrain ends all workloads in the background, once.
func (n *node) startDrain() {
	n.drain.once.Do(func() {
		n.beginDrain()
		n.drain.wg.Go(func() {
			n.workloads.Drain(workload.NoLimit, n.tellDrain)
			n.endDrain()
		})
	})
}

// empty ends all workloads of a node that is being stopped. Meanwhile the node
// still answers, as one in lame duck mode. A drain by request that is under way
// gets to its end sooner.
func (n *node) empty() {
	n.lameDuck.Store(true)
	within := n.workloads.DrainBound(lastCalls) + stopSlack
	n.beginDrain()
	n.warn(n.cfg.Notify.Stopping(within, "Stopping: "+n.progress().String()))
	n.workloads.Close(lastCalls, n.tellDrain)
	n.drain.wg.Wait()
	n.endDrain()
}

func (n *node) beginDrain() {
	n.drain.mu.Lock()
	defer n.drain.mu.Unlock()
	if !n.drain.on {
		n.drain.on = true
		n.reportDrainLocked("Node ends its workloads")
	}
}

// tellDrain reports the progress, not too often.
func (n *node) tellDrain() {
	n.drain.mu.Lock()
	defer n.drain.mu.Unlock()
	if n.drain.done || n.drain.later != nil {
		return
	}
	wait := tellDrain - time.Since(n.drain.told)
	if wait <= 0 {
		n.reportDrainLocked("Node ends its workloads")
		return
	}
	n.drain.later = time.AfterFunc(wait, func() {
		n.drain.mu.Lock()
		n.drain.later = nil
		n.drain.mu.Unlock()
		n.tellDrain()
	})
}

func (n *node) endDrain() {
	n.drain.mu.Lock()
	defer n.drain.mu.Unlock()
	if !n.drain.done {
		n.drain.done = true
		if n.drain.later != nil {
			n.drain.later.Stop()
		}
		n.reportDrainLocked("Node is empty")
	}
}

// reportDrainLocked says how far the drain is: in the log, in an event and to
// the service manager.
func (n *node) reportDrainLocked(title string) {
	p := n.progressLocked()
	n.drain.told = time.Now()
	n.log.Info(title, "functions", p.Functions, "services", p.Services)
	n.reporter.system(nex.NodeDraining{ID: n.identity.id, DrainProgress: p})
	n.warn(n.cfg.Notify.Status("Draining: " + p.String()))
}

// beAlive tells the service manager's watchdog that the node is not stuck, until
// ctx ends.
func (n *node) beAlive(ctx context.Context) {
	every := n.cfg.Notify.Watchdog()
	if every == 0 {
		return
	}
	beat := time.NewTicker(every)
	defer beat.Stop()
	for {
		n.workloads.Left() // whoever waits here for ever is stuck
		n.warn(n.cfg.Notify.Alive())
		select {
		case <-beat.C:
		case <-ctx.Done():
			return
		}
	}
}

// warn logs that the service manager was not told something, not each time.
func (n *node) warn(err error) {
	if err != nil {
		n.unheard.Do(func() { n.log.Warn("Service manager does not hear", "error", err) })
	}
}
