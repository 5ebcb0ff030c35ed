package agent

import (
	"context"
	"time"
)

const (
	// grace is how long code may go on after it was told to stop, in time and in
	// time of the processor.
	grace = 100 * time.Millisecond
	// glance is how often code that should have stopped is looked at.
	glance = 10 * time.Millisecond
	// fewest bounds for how many calls at once the processor must have had time,
	// so that many of them do not put off the end of one that does not stop.
	fewest = 8
	// goodbye is how long the node may take to end an agent that gave up.
	goodbye = time.Second
)

// watch sees that the code of a workload is back soon after ctx has ended, or
// that the agent is not for much longer. The function it returns says that the
// code is back.
func (a *agent) watch(ctx context.Context, id string) (back func()) {
	a.running.Add(1)
	returned, watched := make(chan struct{}), make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(watched)
		a.overdue(id, returned)
	})
	return func() {
		a.running.Add(-1)
		close(returned)
		if !stop() {
			<-watched
		}
	}
}

// overdue waits for code that was told to stop, and ends the agent when it does
// not. If the processor has no time for this agent the code is not to blame;
// the node still ends an agent that takes far too long.
func (a *agent) overdue(id string, returned <-chan struct{}) {
	start, used := time.Now(), processorTime()
	t := time.NewTicker(glance)
	defer t.Stop()
	for {
		select {
		case <-returned:
			return
		case <-t.C:
		}
		if runaway(time.Since(start), processorTime()-used, int(a.running.Load())) {
			a.giveUp(id)
			return
		}
	}
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
