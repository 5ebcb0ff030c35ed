package agent

import (
	"context"
	"sync"
	"time"
)

const (
	// grace is how long code may go on after it was told to stop, in time and in
	// time of the processor.
	grace = 100 * time.Millisecond
	// glance is how often the code that runs is looked at.
	glance = 10 * time.Millisecond
	// patience is how many glances without running code are the last.
	patience = 10
	// fewest bounds for how many calls at once the processor must have had time,
	// so that many of them do not put off the end of one that does not stop.
	fewest = 8
	// goodbye is how long the node may take to end an agent that gave up.
	goodbye = time.Second
)

// overseer sees that the code of workloads is back soon after it was told to
// stop, or that the agent is not for much longer. One goroutine looks after all
// code, while there is any: that costs a call much less than one of its own.
type overseer struct {
	giveUp func(id string) // ends the agent, as the code of that workload does not stop

	mu    sync.Mutex
	runs  map[*run]struct{}
	awake bool
	ended chan struct{} // closed by end
	wg    sync.WaitGroup
}

// run is code of a workload that was begun and is not back.
type run struct {
	id  string
	ctx context.Context

	late bool          // it was told to stop
	when time.Time     // that was seen
	used time.Duration // time of the processor at that moment
}

func newOverseer(giveUp func(id string)) *overseer {
	return &overseer{giveUp: giveUp, runs: map[*run]struct{}{}, ended: make(chan struct{})}
}

// begin looks after code of a workload that has to stop when ctx ends, until it
// is back.
func (o *overseer) begin(ctx context.Context, id string) *run {
	r := &run{id: id, ctx: ctx}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.runs[r] = struct{}{}
	if !o.awake {
		o.awake = true
		o.wg.Go(o.look)
	}
	return r
}

// back says that the code is.
func (o *overseer) back(r *run) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.runs, r)
}

// end waits until nothing is looked after any more.
func (o *overseer) end() {
	close(o.ended)
	o.wg.Wait()
}

// look looks again and again, until there was no code for a while.
func (o *overseer) look() {
	t := time.NewTicker(glance)
	defer t.Stop()
	for idle := 0; ; {
		select {
		case <-t.C:
		case <-o.ended:
			return
		}
		o.mu.Lock()
		if idle++; len(o.runs) > 0 {
			idle = 0
		}
		culprit := o.culpritLocked()
		o.awake = idle < patience
		awake := o.awake
		o.mu.Unlock()
		if culprit != nil {
			o.giveUp(culprit.id)
			return
		}
		if !awake {
			return
		}
	}
}

// culpritLocked returns code that was told to stop and never will. If the
// processor has no time for this agent the code is not to blame; the node still
// ends an agent that takes far too long.
func (o *overseer) culpritLocked() *run {
	for r := range o.runs {
		switch {
		case r.ctx.Err() == nil:
		case !r.late:
			r.late, r.when, r.used = true, time.Now(), processorTime()
		case runaway(time.Since(r.when), processorTime()-r.used, len(o.runs)):
			return r
		}
	}
	return nil
}

// runaway reports whether code that was told to stop this long ago never will.
// Meanwhile the agent used the processor for that long, for so many calls.
func runaway(since, used time.Duration, calls int) bool {
	return since >= grace && used >= grace*time.Duration(min(max(calls, 1), fewest))
}

// giveUp ends this agent, since nothing else stops the code of one workload.
func (a *agent) giveUp(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), goodbye)
	defer cancel()
	a.server.GiveUp(ctx, id)
	a.cfg.Quit()
}
