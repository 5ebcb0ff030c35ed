package guest

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// LinkVariable tells an agent how its guest link came: [LinkPipes], or "" for a
// socket that it inherits as a file descriptor.
const (
	LinkVariable = "NEX_LINK"
	LinkPipes    = "pipes" // standard input and standard output
)

// pipes is a stream made of two pipes, for systems without socket pairs. Not
// every system lets a wait for a pipe have a deadline, or end when the pipe is
// closed; a goroutine reads ahead, so that here both do.
type pipes struct {
	in  io.ReadCloser
	out io.WriteCloser

	filled chan []byte   // what came in; closed at its end
	empty  chan []byte   // buffers to be filled
	closed chan struct{} // by Close
	once   sync.Once
	inErr  error  // why filled is closed; set before
	rest   []byte // of the buffer being read; it belongs to who reads
	buffer []byte // that it is in

	mu  sync.Mutex
	due time.Time // for reading
}

// NewPipes makes a stream of two pipes and owns them. Reads have deadlines that
// hold for those that begin later, and end when it is closed; one goroutine
// reads at a time. Writes have no deadlines.
func NewPipes(in io.ReadCloser, out io.WriteCloser) net.Conn {
	p := &pipes{in: in, out: out, filled: make(chan []byte), empty: make(chan []byte, 2), closed: make(chan struct{})}
	for range cap(p.empty) {
		p.empty <- make([]byte, 64<<10)
	}
	go p.fill()
	return p
}

// fill reads ahead until the pipe ends.
func (p *pipes) fill() {
	defer close(p.filled)
	for {
		var b []byte
		select {
		case b = <-p.empty:
		case <-p.closed:
			return
		}
		n, err := p.in.Read(b)
		if n > 0 {
			select {
			case p.filled <- b[:n]:
			case <-p.closed:
				return
			}
		} else if err == nil {
			p.empty <- b // there is room: it came from there
		}
		if err != nil {
			p.inErr = err
			return
		}
	}
}

// Read implements [net.Conn].
func (p *pipes) Read(b []byte) (int, error) {
	p.mu.Lock()
	due := p.due
	p.mu.Unlock()
	var late <-chan time.Time
	if !due.IsZero() {
		left := time.Until(due)
		if left <= 0 {
			return 0, os.ErrDeadlineExceeded
		}
		t := time.NewTimer(left)
		defer t.Stop()
		late = t.C
	}
	if len(p.rest) == 0 {
		select {
		case <-p.closed:
			return 0, net.ErrClosed
		case <-late:
			return 0, os.ErrDeadlineExceeded
		case more, open := <-p.filled:
			if !open {
				return 0, p.ending()
			}
			p.rest, p.buffer = more, more[:cap(more)]
		}
	}
	n := copy(b, p.rest)
	if p.rest = p.rest[n:]; len(p.rest) == 0 {
		p.empty <- p.buffer // likewise
	}
	return n, nil
}

// ending is why nothing comes any more.
func (p *pipes) ending() error {
	select {
	case <-p.closed:
		return net.ErrClosed
	default:
		return p.inErr
	}
}

// Write implements [net.Conn].
func (p *pipes) Write(b []byte) (int, error) { return p.out.Write(b) }

// Close implements [net.Conn]. It is idempotent.
func (p *pipes) Close() (err error) {
	p.once.Do(func() {
		close(p.closed)
		err = errors.Join(p.out.Close(), p.in.Close())
	})
	return err
}

// SetReadDeadline implements [net.Conn].
func (p *pipes) SetReadDeadline(due time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due = due
	return nil
}

// SetDeadline implements [net.Conn], of which there are none for writing.
func (p *pipes) SetDeadline(time.Time) error { return errors.ErrUnsupported }

// SetWriteDeadline implements [net.Conn], likewise.
func (p *pipes) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// pipesAddr is the address of both ends.
type pipesAddr struct{}

func (pipesAddr) Network() string { return "pipes" }
func (pipesAddr) String() string  { return "pipes" }

// LocalAddr implements [net.Conn].
func (*pipes) LocalAddr() net.Addr { return pipesAddr{} }

// RemoteAddr implements [net.Conn].
func (*pipes) RemoteAddr() net.Addr { return pipesAddr{} }
