//go:build unix

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

	"nex/internal/direct"
)

// stream is a guest link by pipes, by a socket or by a virtio-serial port. Who waits does so in the kernel,
// holding a thread, instead of in Go's poller: for the one link of a process that is
// the shorter way, above all for code that does not leave its thread. It waits for the descriptor and for bell
// together, because closing pipes and character devices wakes nobody. The kernel reports
// POLLHUP for a port, and reads give 0 bytes, while the host has not opened its end; its stream is made
// after it has.
//
// A deadline for reading is for reads that begin later.
type stream struct {
	path    string
	in, out int    // not blocking; the same one, or two
	bell    [2]int // a pipe, written to wake who waits

	mu     sync.RWMutex // held by who uses the descriptors; for writing to close them
	closed atomic.Bool
	due    atomic.Int64 // nanoseconds since 1970, 0 for none
}

var _ net.Conn = (*stream)(nil)

// inherit takes over pipes, one to read from and one to write to, or a socket
// that is both.
func inherit(in, out int) (net.Conn, error) {
	for _, fd := range []int{in, out} {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return nil, err
		}
		if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFIFO && kind != unix.S_IFSOCK {
			return nil, unix.EINVAL
		}
	}
	return newStream(in, out, "guest link")
}

// newStream owns the descriptors, also when it fails.
func newStream(in, out int, path string) (*stream, error) {
	s := &stream{path: path, in: in, out: out}
	err := errors.Join(unix.SetNonblock(in, true), unix.SetNonblock(out, true))
	if err == nil {
		err = unix.Pipe(s.bell[:])
	}
	if err != nil {
		return nil, errors.Join(err, s.closeBoth())
	}
	unix.CloseOnExec(s.bell[0])
	unix.CloseOnExec(s.bell[1])
	return s, nil
}

func (s *stream) closeBoth() error {
	err := unix.Close(s.in)
	if s.out != s.in {
		err = errors.Join(err, unix.Close(s.out))
	}
	return err
}

// Read implements [net.Conn]. The end of the host's side is [io.EOF].
func (s *stream) Read(b []byte) (int, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for len(b) > 0 {
		if s.closed.Load() {
			return 0, net.ErrClosed
		}
		var due time.Time
		if at := s.due.Load(); at != 0 {
			due = time.Unix(0, at)
			if !due.After(time.Now()) {
				return 0, os.ErrDeadlineExceeded
			}
		}
		n, err := direct.Read(s.in, b)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			return 0, io.EOF
		case errors.Is(err, unix.EAGAIN):
			// A thread that waits in the kernel keeps its processor for a while: who
			// was given work has to begin it first, where there is only one.
			runtime.Gosched()
			if _, err := s.await(unix.POLLIN, due); err != nil {
				return 0, err
			}
		case !errors.Is(err, unix.EINTR):
			return 0, fmt.Errorf("read %s: %w", s.path, err)
		}
	}
	return 0, nil
}

// Write implements [net.Conn].
func (s *stream) Write(b []byte) (written int, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for {
		n, err := s.write(b[written:])
		if written += n; written == len(b) || err != nil {
			return written, err
		}
		happened, err := s.await(unix.POLLOUT, time.Time{})
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
func (s *stream) WriteNow(b []byte) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n, _ := s.write(b) // see above
	return n
}

// write is WriteNow with its error. The kernel takes at most 32 KiB at a time.
func (s *stream) write(b []byte) (written int, err error) {
	for written < len(b) {
		if s.closed.Load() {
			return written, net.ErrClosed
		}
		n, err := direct.Write(s.out, b[written:])
		switch {
		case n > 0:
			written += n
		case err == nil:
			return written, fmt.Errorf("write %s: %w", s.path, io.ErrShortWrite)
		case errors.Is(err, unix.EAGAIN):
			return written, nil
		case !errors.Is(err, unix.EINTR):
			return written, fmt.Errorf("write %s: %w", s.path, err)
		}
	}
	return written, nil
}

// await returns what has happened to the stream when it may be ready, when due has
// come (a zero due is never) or when it has been closed, which is for the
// caller to find out.
func (s *stream) await(events int16, due time.Time) (happened int16, err error) {
	wait := -1
	if !due.IsZero() {
		wait = int(max(0, min(time.Until(due).Milliseconds()+1, math.MaxInt32)))
	}
	fd := s.in
	if events == unix.POLLOUT {
		fd = s.out
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(s.bell[0]), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, wait); err != nil && !errors.Is(err, unix.EINTR) {
		return 0, fmt.Errorf("wait for %s: %w", s.path, err)
	}
	return fds[0].Revents, nil
}

// Close implements [net.Conn]. It wakes who reads or writes, and is idempotent.
func (s *stream) Close() error {
	if !s.closed.CompareAndSwap(false, true) {
		return nil
	}
	_, err := unix.Write(s.bell[1], []byte{1})
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(err, s.closeBoth(), unix.Close(s.bell[0]), unix.Close(s.bell[1]))
}

// SetReadDeadline implements [net.Conn].
func (s *stream) SetReadDeadline(due time.Time) error {
	if due.IsZero() {
		s.due.Store(0)
	} else {
		s.due.Store(due.UnixNano())
	}
	return nil
}

// SetDeadline implements [net.Conn], of which there are none for writing.
func (s *stream) SetDeadline(time.Time) error { return errors.ErrUnsupported }

// SetWriteDeadline implements [net.Conn], likewise.
func (s *stream) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// LocalAddr implements [net.Conn].
func (s *stream) LocalAddr() net.Addr { return streamAddr(s.path) }

// RemoteAddr implements [net.Conn].
func (s *stream) RemoteAddr() net.Addr { return streamAddr(s.path) }

// streamAddr is what a stream is made of.
type streamAddr string

// Network implements [net.Addr].
func (streamAddr) Network() string { return "guest link" }

// String implements [net.Addr].
func (a streamAddr) String() string { return string(a) }
