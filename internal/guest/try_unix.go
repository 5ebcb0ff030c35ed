//go:build unix

package guest

import (
	"errors"
	"net"
	"syscall"
)

// withoutWaiting returns a function that writes as much to a stream as it takes
// at once, and says how many bytes that were. Errors are for the next write
// that may wait. It returns nil if the stream is none of the system's.
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
				n, err := syscall.Write(int(fd), b)
				if err != nil && errors.Is(err, syscall.EINTR) {
					continue
				}
				written = max(n, 0)
				return true
			}
		})
		return written
	}
}
