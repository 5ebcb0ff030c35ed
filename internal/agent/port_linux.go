package agent

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// port is a virtio-serial port as a stream. Who waits does so in the kernel,
// holding a thread, for the port and for bell together: closing a character
// device wakes nobody. The kernel reports POLLHUP, and reads give 0 bytes, while
// the host has not opened its end; a port is made after it has.
//
// A deadline for reading is for reads that begin later.
type port struct {
	path string
	fd   int // not blocking
	bell int // an eventfd, rung to wake who waits

	mu     sync.RWMutex // held by who uses the descriptors; for writing to close them
	closed atomic.Bool
	due    atomic.Int64 // nanoseconds since 1970, 0 for none
}

var _ net.Conn = (*port)(nil)

// newPort owns fd, also when it fails.
func newPort(fd int, path string) (*port, error) {
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &port{path: path, fd: fd, bell: bell}, nil
}

// connected reports whether the host has its end open.
func (p *port) connected() bool {
	fds := []unix.PollFd{{Fd: int32(p.fd)}}
	for {
		_, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) == 0
		}
	}
}

// Read implements [net.Conn]. The end of the host's side is [io.EOF].
func (p *port) Read(b []byte) (int, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for len(b) > 0 {
		if p.closed.Load() {
			return 0, net.ErrClosed
		}
		var due time.Time
		if at := p.due.Load(); at != 0 {
			due = time.Unix(0, at)
			if !due.After(time.Now()) {
				return 0, os.ErrDeadlineExceeded
			}
		}
		n, err := unix.Read(p.fd, b)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			return 0, io.EOF
		case errors.Is(err, unix.EAGAIN):
			// A thread that waits in the kernel keeps its processor for a while: who
			// was given work has to begin it first, where there is only one.
			runtime.Gosched()
			if _, err := p.await(unix.POLLIN, due); err != nil {
				return 0, err
			}
		case !errors.Is(err, unix.EINTR):
			return 0, fmt.Errorf("read %s: %w", p.path, err)
		}
	}
	return 0, nil
}

// Write implements [net.Conn].
func (p *port) Write(b []byte) (written int, err error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for {
		n, err := p.write(b[written:])
		if written += n; written == len(b) || err != nil {
			return written, err
		}
		happened, err := p.await(unix.POLLOUT, time.Time{})
		if err == nil && happened&(unix.POLLHUP|unix.POLLERR) != 0 {
			err = unix.EPIPE
		}
		if err != nil {
			return written, err
		}
	}
}

// WriteNow writes as much as goes without waiting, and says how many bytes that
// were. Errors are for the next write that may wait.
func (p *port) WriteNow(b []byte) int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	n, _ := p.write(b) // see above
	return n
}

// write is WriteNow with its error. The kernel takes at most 32 KiB at a time.
func (p *port) write(b []byte) (written int, err error) {
	for written < len(b) {
		if p.closed.Load() {
			return written, net.ErrClosed
		}
		n, err := unix.Write(p.fd, b[written:])
		switch {
		case n > 0:
			written += n
		case err == nil:
			return written, fmt.Errorf("write %s: %w", p.path, io.ErrShortWrite)
		case errors.Is(err, unix.EAGAIN):
			return written, nil
		case !errors.Is(err, unix.EINTR):
			return written, fmt.Errorf("write %s: %w", p.path, err)
		}
	}
	return written, nil
}

// await returns what has happened to the port when it may be ready, when due has
// come (a zero due is never) or when the port has been closed, which is for the
// caller to find out.
func (p *port) await(events int16, due time.Time) (happened int16, err error) {
	wait := -1
	if !due.IsZero() {
		wait = int(max(0, min(time.Until(due).Milliseconds()+1, math.MaxInt32)))
	}
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: events}, {Fd: int32(p.bell), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, wait); err != nil && !errors.Is(err, unix.EINTR) {
		return 0, fmt.Errorf("wait for %s: %w", p.path, err)
	}
	return fds[0].Revents, nil
}

// Close implements [net.Conn]. It wakes who reads or writes, and is idempotent.
func (p *port) Close() error {
	if !p.closed.CompareAndSwap(false, true) {
		return nil
	}
	_, err := unix.Write(p.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(err, unix.Close(p.fd), unix.Close(p.bell))
}

// SetReadDeadline implements [net.Conn].
func (p *port) SetReadDeadline(due time.Time) error {
	if due.IsZero() {
		p.due.Store(0)
	} else {
		p.due.Store(due.UnixNano())
	}
	return nil
}

// SetDeadline implements [net.Conn], of which there are none for writing.
func (p *port) SetDeadline(time.Time) error { return errors.ErrUnsupported }

// SetWriteDeadline implements [net.Conn], likewise.
func (p *port) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// LocalAddr implements [net.Conn].
func (p *port) LocalAddr() net.Addr { return portAddr(p.path) }

// RemoteAddr implements [net.Conn].
func (p *port) RemoteAddr() net.Addr { return portAddr(p.path) }

// portAddr is the device of a port.
type portAddr string

// Network implements [net.Addr].
func (portAddr) Network() string { return "virtio-serial" }

// String implements [net.Addr].
func (a portAddr) String() string { return string(a) }
