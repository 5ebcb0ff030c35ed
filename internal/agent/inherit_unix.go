//go:build unix

package agent

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// socket is a stream whose reads wait in the kernel, each holding a thread,
// instead of in Go's poller: for the one socket of a process that is the shorter
// way, since what comes in wakes its reader and nobody else. It has no
// deadlines.
type socket struct{ *os.File }

// inherit takes over a socket that this process was started with.
func inherit(fd int) (net.Conn, error) {
	if _, err := unix.Getsockname(fd); err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return nil, err
	}
	return socket{os.NewFile(uintptr(fd), "guest link")}, nil
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
