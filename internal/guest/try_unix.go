//go:build unix

package guest

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// withoutWaiting returns a function that writes as much to a stream as it takes
// at once, and says how many bytes that were. Errors are for the next write
// that may wait. It returns nil if the stream is no socket.
func withoutWaiting(conn net.Conn) func([]byte) int {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	return func(b []byte) (written int) {
		_ = raw.Write(func(fd uintptr) bool { // fails on a closed stream
			for {
				n, err := unix.SendmsgN(int(fd), b, nil, nil, unix.MSG_DONTWAIT)
				if errors.Is(err, unix.EINTR) {
					continue
				}
				written = max(n, 0)
				return true
			}
		})
		return written
	}
}
