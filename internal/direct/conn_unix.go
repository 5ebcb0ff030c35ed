//go:build unix

package direct

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// end is a descriptor that Go's poller knows: a socket or a file.
type end interface {
	io.ReadWriteCloser
	syscall.Conn
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Conn is a direct stream. Like every [net.Conn] it is safe for concurrent use.
type Conn struct {
	in, out       end // the same one, or two
	read, write   syscall.RawConn
	local, remote net.Addr
}

var _ net.Conn = (*Conn)(nil)

// Wrap returns a stream that does what conn does, and owns it; conn itself if it
// is no socket of the system.
func Wrap(conn net.Conn) net.Conn {
	var e end
	switch c := conn.(type) {
	case *net.TCPConn:
		e = c
	case *net.UnixConn:
		e = c
	default:
		return conn
	}
	c, err := newConn(e, e)
	if err != nil {
		return conn
	}
	c.local, c.remote = conn.LocalAddr(), conn.RemoteAddr()
	return c
}

// Pipe makes a stream of two pipes, and returns what the process at the other end
// reads from and writes to. Unlike a socket pair they wake nobody when what was written is read.
func Pipe() (near *Conn, far [2]*os.File, err error) {
	farIn, out, err := os.Pipe()
	if err != nil {
		return nil, far, err
	}
	in, farOut, err := os.Pipe()
	if err != nil {
		return nil, far, errors.Join(err, farIn.Close(), out.Close())
	}
	enlarge(in)
	enlarge(out)
	if near, err = newConn(in, out); err != nil {
		return nil, far, errors.Join(err, farIn.Close(), out.Close(), in.Close(), farOut.Close())
	}
	return near, [2]*os.File{farIn, farOut}, nil
}

func newConn(in, out end) (*Conn, error) {
	r, err := in.SyscallConn()
	if err != nil {
		return nil, err
	}
	w, err := out.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Conn{in: in, out: out, read: r, write: w, local: name("pipes"), remote: name("pipes")}, nil
}

// Read implements [net.Conn].
func (c *Conn) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	waitErr := c.read.Read(func(fd uintptr) bool {
		n, err = Read(int(fd), p)
		return !errors.Is(err, syscall.EAGAIN)
	})
	switch {
	case waitErr != nil:
		return 0, waitErr
	case err != nil:
		return 0, os.NewSyscallError("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements [net.Conn].
func (c *Conn) Write(p []byte) (written int, err error) {
	waitErr := c.write.Write(func(fd uintptr) bool {
		for written < len(p) {
			var n int
			if n, err = Write(int(fd), p[written:]); err != nil {
				return !errors.Is(err, syscall.EAGAIN)
			}
			written += n
		}
		return true
	})
	if waitErr != nil {
		return written, waitErr
	}
	return written, os.NewSyscallError("write", err)
}

// WriteNow writes as much as goes without waiting, and says how many bytes that
// were. Errors are for the next write that may wait.
func (c *Conn) WriteNow(p []byte) (written int) {
	_ = c.write.Write(func(fd uintptr) bool { // fails on a closed stream
		n, err := Write(int(fd), p)
		if err == nil {
			written = n
		}
		return true
	})
	return written
}

// Close implements [net.Conn].
func (c *Conn) Close() error {
	if c.in == c.out {
		return c.in.Close()
	}
	return errors.Join(c.out.Close(), c.in.Close())
}

// SetReadDeadline implements [net.Conn].
func (c *Conn) SetReadDeadline(t time.Time) error { return c.in.SetReadDeadline(t) }

// SetWriteDeadline implements [net.Conn].
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.out.SetWriteDeadline(t) }

// SetDeadline implements [net.Conn].
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// LocalAddr implements [net.Conn].
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements [net.Conn].
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// name is the address of both ends of pipes.
type name string

// Network implements [net.Addr].
func (n name) Network() string { return string(n) }

// String implements [net.Addr].
func (n name) String() string { return string(n) }
