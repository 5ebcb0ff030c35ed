package guest

import (
	"context"
	"errors"
	"slices"
	"time"

	"nex"
)

// Fault says whose fault the loss of a guest may have been, as seen by one of
// its workloads.
type Fault int

const (
	// FaultUnknown is a loss while no workload's code was known to run.
	FaultUnknown Fault = iota
	// FaultOthers is a loss for which others may be to blame, and not this one.
	FaultOthers
	// FaultOwn is a loss for which this workload may be to blame.
	FaultOwn
	// FaultCrowd is a loss for which this workload may be to blame, and many
	// others as well.
	FaultCrowd
)

// few is how many suspects of one loss are no crowd.
const few = 8

// errRunaway ends a link whose agent says that it cannot stop a function.
var errRunaway = errors.New("the agent cannot stop a function")

// blameFunc hears, with the link locked, which workloads may be the reason why
// the other end was lost. It must not call the link.
type blameFunc func(suspects map[string]bool)

// blameLocked tells who may be the reason for the end of the link: those who
// are known to be, or else everybody with a call that was not answered. When
// this side ended the link nobody is.
func (l *link) blameLocked(culprits []string) {
	if l.blame == nil || errors.Is(l.err, ErrClosed) {
		return
	}
	suspects := map[string]bool{}
	suspect := func(who string) {
		if who != "" { // a call that runs no workload's code
			suspects[who] = true
		}
	}
	for _, who := range culprits {
		suspect(who)
	}
	if len(suspects) == 0 {
		for _, c := range l.pending {
			suspect(c.who)
		}
	}
	l.blame(suspects)
}

// almost is how much earlier than its caller an agent may find that a call is
// late.
const almost = 100 * time.Millisecond

// loss is the outcome of a call that was in flight when the link ended. A call
// of code that did not stop in time was too late, not lost.
func (c *pendingCall) loss(culprits []string) outcome {
	if !c.due.IsZero() && slices.Contains(culprits, c.who) && time.Until(c.due) < almost {
		return outcome{err: context.DeadlineExceeded}
	}
	return outcome{err: nex.Errorf(nex.Unavailable, textLost)}
}

// blame passes on to every workload of the guest whose fault its loss may be.
func (c *Client) blame(suspects map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, sink := range c.sinks {
		if sink.Lost == nil {
			continue
		}
		fault := FaultUnknown
		switch {
		case suspects[id] && len(suspects) > few:
			fault = FaultCrowd
		case suspects[id]:
			fault = FaultOwn
		case len(suspects) > 0:
			fault = FaultOthers
		}
		sink.Lost(fault)
	}
}
