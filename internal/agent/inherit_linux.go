package agent

import (
	"math"

	"golang.org/x/sys/unix"
)

// keepToOurselves sees that no workload inherits a file descriptor: those this
// process was started with besides its standard ones. Kernels before 5.11
// cannot, and then nothing is done.
func keepToOurselves() {
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) // see above
}
