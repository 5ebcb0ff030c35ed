package workload

import (
	"time"

	"nex"
	"nex/internal/guest"
)

// Bounds of the delay before a workload is started again.
const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = 10 * time.Second
	// functionReset is how long a function must have run for its earlier losses
	// to be forgotten; services have a setting for it.
	functionReset = 10 * time.Second
)

// restarts decides whether and when a workload runs again. It starts nothing,
// and belongs to the workload's loop.
type restarts struct {
	policy  nex.Restart
	service bool
	// random is from 0 to 1. It shortens delays, by half at most, so that what
	// failed together is not started together again and again.
	random func() float64

	// Both are about the time since it was last healthy for long.
	tries  int  // to run it again, for whatever reason
	spent  int  // restarts of the service since it ended or did not get ready
	gaveUp bool // there would be another restart, were there not a most
}

func newRestarts(s Spec, random func() float64) restarts {
	r := restarts{policy: s.Settings.Restart, service: !s.Type.IsFunction(), random: random}
	if !r.service {
		r.policy = nex.Restart{ResetMS: int(functionReset.Milliseconds())}
	}
	return r
}

// next says what follows the end of a run that was healthy for some time: after
// how long another begins, if one does.
func (r *restarts) next(e end, healthy time.Duration) (time.Duration, bool) {
	if healthy > r.policy.Reset() {
		r.tries, r.spent = 0, 0
	}
	if !r.again(e) {
		return 0, false
	}
	d := r.delay(e)
	if e.fault != guest.FaultOthers { // the failures of others delay nobody
		r.tries++
	}
	if e.ofItself() {
		r.spent++
	}
	return d, true
}

// ofItself reports whether a service ended, or did not get ready. Who lost its
// machine, or could not come back to one, did not: that is nobody's wish.
func (e end) ofItself() bool { return e.exit != nil || e.unready }

// again reports whether the policy wants another run.
func (r *restarts) again(e end) bool {
	if !r.service || !e.ofItself() {
		return true
	}
	switch r.policy.Policy {
	case nex.RestartAlways:
	case nex.RestartOnFailure:
		if !e.unready && e.exit.Code == 0 {
			return false
		}
	default:
		return false
	}
	r.gaveUp = r.policy.MaxAttempts > 0 && r.spent >= r.policy.MaxAttempts
	return !r.gaveUp
}

// delay doubles with every try. There is none for who lost its machine through
// others, and none the first time for who is not known to be to blame.
func (r *restarts) delay(e end) time.Duration {
	tries := r.tries
	switch {
	case e.fault == guest.FaultOthers:
		return 0
	case e.exit != nil, e.unready, e.fault == guest.FaultOwn, e.fault == guest.FaultCrowd:
		tries++
	case e.err != nil:
		tries = max(tries, 1)
	}
	if tries == 0 {
		return 0
	}
	longest := min(firstDelay<<min(tries-1, 16), lastDelay)
	return longest - time.Duration(r.random()*float64(longest)/2)
}
