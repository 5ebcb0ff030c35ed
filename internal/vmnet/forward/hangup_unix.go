//go:build unix

package forward

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// lookAgain is how often a wait for a hangup looks whether it is to stop.
const lookAgain = 500 * time.Millisecond

// onHangup calls f when the other end of a socket has been closed altogether. One that
// only sends no more has not been. It does nothing for what is no socket; stop waits until f is not called any more.
func onHangup(file *os.File, f func()) (stop func()) {
	fd := int(file.Fd())
	if _, err := unix.Getsockname(fd); err != nil {
		return func() {}
	}
	var over atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for !over.Load() {
			fds := []unix.PollFd{{Fd: int32(fd)}} // a hangup is always told
			n, err := unix.Poll(fds, int(lookAgain.Milliseconds()))
			if err != nil && !errors.Is(err, unix.EINTR) {
				return
			}
			if n > 0 && fds[0].Revents&unix.POLLHUP != 0 {
				f()
				return
			}
		}
	}()
	return func() { over.Store(true); <-ended }
}
