package workload

import (
	"time"

	"nex/internal/guest"
)

// Bounds of the delay before a workload is started again.
const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = 10 * time.Second
	// healthyAfter is how long a workload must have run for its earlier
	// failures to be forgotten.
	healthyAfter = 10 * time.Second
)

// restart decides whether and when a workload runs again. It starts nothing.
type restart struct {
	service   bool
	essential bool
}

// afterExit says what follows the exit of a service: essential ones that
// failed start again, after a delay that doubles with every try.
func (r restart) afterExit(e guest.Exit, tries int) (time.Duration, bool) {
	if !r.service || !r.essential || e.Code == 0 {
		return 0, false
	}
	return delay(tries + 1), true
}

// afterLoss says when a workload that lost its guest starts again. It always
// does: at once if others were to blame; if nobody is known to be, at once the
// first time; if it may be to blame itself, never at once.
func (r restart) afterLoss(f guest.Fault, tries int) time.Duration {
	switch f {
	case guest.FaultOthers:
		return 0
	case guest.FaultOwn, guest.FaultCrowd:
		return delay(tries + 1)
	}
	return delay(tries)
}

func delay(tries int) time.Duration {
	if tries == 0 {
		return 0
	}
	return min(firstDelay<<min(tries-1, 16), lastDelay)
}
