//go:build unix

package agent

import (
	"errors"
	"math"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a stream whose reads wait in the kernel, each holding a thread,
// instead of in Go's poller: for the one socket of a process that is the shorter
// way, since what comes in wakes its reader and nobody else. A deadline for
// reading is for reads that begin later; it belongs to who reads.
type socket struct {
	*os.File
	fd  int
	due *time.Time
}

// inherit takes over a socket that this process was started with.
func inherit(fd int) (net.Conn, error) {
	if _, err := unix.Getsockname(fd); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return nil, err
	}
	return socket{os.NewFile(uintptr(fd), "guest link"), fd, new(time.Time)}, nil
}

// SetReadDeadline implements [net.Conn].
func (s socket) SetReadDeadline(due time.Time) error {
	*s.due = due
	return nil
}

// Read implements [net.Conn].
func (s socket) Read(p []byte) (int, error) {
	for !s.due.IsZero() {
		left := time.Until(*s.due)
		if left <= 0 {
			return 0, os.ErrDeadlineExceeded
		}
		wait := int(min(left.Milliseconds()+1, math.MaxInt32))
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, wait); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			break // there is something to read, or an error that reading meets too
		}
	}
	return s.File.Read(p)
}

// Close wakes who waits in the kernel, too.
func (s socket) Close() error {
	raw, err := s.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			_ = unix.Shutdown(int(fd), unix.SHUT_RDWR) // fails where the other end has gone
		})
	}
	return errors.Join(err, s.File.Close())
}

// LocalAddr implements [net.Conn].
func (s socket) LocalAddr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// RemoteAddr implements [net.Conn].
func (s socket) RemoteAddr() net.Addr { return &net.UnixAddr{Net: "unix"} }
