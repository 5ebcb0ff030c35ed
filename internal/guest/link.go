// Package guest is the guest link: the one ordered duplex byte stream between
// a node and the agent in one machine. It owns the frames, the calls in both
// directions and the messages they carry, with a [Client] for the node's end
// and a [Server] for the agent's.
//
// Who is at the other end is known from the stream alone. The node takes every
// byte of it as hostile: what is malformed, out of turn or over a limit ends
// the link with an error, and never more than MaxMessage bytes a call are held.
//
// All types are safe for concurrent use. The package knows nothing of NATS or
// of how a stream came to be.
package guest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"nex"
)

const (
	// maxCalls is how many calls may be in flight in one direction.
	maxCalls = 4096
	// maxLong is how many messages of more than one frame are on their way
	// at once in one direction, so that few are unfinished at the other end.
	maxLong = 2
	// queued is how many frames may wait for the writer; senders block
	// beyond it.
	queued = 64
	// hangAfter is how long the other end may take to answer a call that was
	// cancelled before the link counts as hung.
	hangAfter = 2 * time.Second
)

// ErrClosed is the end of a link that this side closed.
var ErrClosed = errors.New("guest link closed")

// errEnded is the end of a link that the other side closed.
var errEnded = errors.New("the other end closed the guest link")

// errHung ends a link whose other end does not stop code that should be
// stopped.
var errHung = errors.New("guest does not answer cancelled calls")

// ErrNotSent is the error of a call that never left, because the link had
// ended: it may be made again on another link.
var ErrNotSent = nex.Errorf(nex.Unavailable, textLost)

// textLost tells callers that a link has ended.
const textLost = "the machine running this workload was lost"

// method names what a call asks for.
type method uint8

// serveFunc answers calls of the other end, on a goroutine of its own each.
type serveFunc func(ctx context.Context, m method, body []byte) (head, reply []byte, err error)

// noticeFunc takes notices of the other end. It runs on the reader and must
// not block for long; its error ends the link.
type noticeFunc func(body []byte) error

// link is one end of the stream.
type link struct {
	conn   net.Conn
	r      *bufio.Reader
	serve  serveFunc  // nil: the other end must not call
	notice noticeFunc // nil: the other end must not send notices

	out  chan frame
	long chan struct{} // a token per long message being sent
	done chan struct{} // closed when the link has ended
	wg   sync.WaitGroup

	mu      sync.Mutex
	err     error                         // why the link ended
	lastID  uint32                        // of our calls
	pending map[uint32]*pendingCall       // ours
	serving map[uint32]context.CancelFunc // theirs
	working int                           // theirs whose answer is not queued yet
	parts   map[partKey][]byte            // unfinished messages
	held    int                           // bytes in parts
}

type partKey struct {
	kind kind
	id   uint32
}

type pendingCall struct {
	reply chan outcome // buffered, written once
	hung  *time.Timer  // set once the caller gave up
}

type outcome struct {
	data []byte
	err  error
}

func newLink(conn net.Conn, serve serveFunc, notice noticeFunc) *link {
	return &link{
		conn: conn, r: bufio.NewReaderSize(conn, 64<<10), serve: serve, notice: notice,
		out: make(chan frame, queued), long: make(chan struct{}, maxLong), done: make(chan struct{}),
		pending: map[uint32]*pendingCall{}, serving: map[uint32]context.CancelFunc{}, parts: map[partKey][]byte{},
	}
}

// start runs the reader and the writer.
func (l *link) start() {
	l.wg.Go(l.read)
	l.wg.Go(l.write)
}

// fail ends the link for a reason, once. It does not wait.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = err
	close(l.done)
	_ = l.conn.Close() // the link is over; there is nobody to tell
	for _, c := range l.pending {
		if c.hung != nil {
			c.hung.Stop()
		}
		c.reply <- outcome{err: nex.Errorf(nex.Unavailable, textLost)}
	}
	clear(l.pending)
	for _, cancel := range l.serving {
		cancel()
	}
}

// close ends the link and waits for everything it started.
func (l *link) close() {
	l.fail(ErrClosed)
	l.wg.Wait()
}

// cause returns why the link ended, nil while it has not.
func (l *link) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *link) write() {
	w := bufio.NewWriterSize(l.conn, 64<<10)
	for {
		select {
		case <-l.done:
			return
		case f := <-l.out:
			if err := l.writeBatch(w, f); err != nil {
				l.fail(fmt.Errorf("write to guest link: %w", err))
				return
			}
		}
	}
}

// writeBatch writes f and what else is waiting, then flushes once.
func (l *link) writeBatch(w *bufio.Writer, f frame) error {
	for {
		if err := writeFrame(w, f); err != nil {
			return err
		}
		select {
		case f = <-l.out:
		default:
			return w.Flush()
		}
	}
}

// send queues a message and blocks while the queue is full.
func (l *link) send(ctx context.Context, k kind, id uint32, head, body []byte) error {
	if len(head)+len(body) > MaxMessage {
		return nex.Errorf(nex.Invalid, "message of %d bytes is over the limit of %d", len(head)+len(body), MaxMessage)
	}
	frames := split(k, id, head, body)
	if len(frames) > 1 {
		select {
		case l.long <- struct{}{}:
			defer func() { <-l.long }()
		case <-l.done:
			return ErrNotSent
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for i, f := range frames {
		select {
		case l.out <- f:
			continue
		case <-l.done:
			if i == 0 {
				return ErrNotSent
			}
			return nex.Errorf(nex.Unavailable, textLost)
		case <-ctx.Done():
		}
		if i == 0 {
			return ctx.Err()
		}
		if !l.insist(f) { // a half-sent message cannot be taken back
			return nex.Errorf(nex.Unavailable, textLost)
		}
	}
	return nil
}

// insist queues a frame, and takes the other end for hung if it cannot.
func (l *link) insist(f frame) bool {
	t := time.NewTimer(hangAfter)
	defer t.Stop()
	select {
	case l.out <- f:
		return true
	case <-t.C:
		l.fail(errHung)
	case <-l.done:
	}
	return false
}

// call asks the other end and waits for the answer or ctx. The link ends if
// the other end ignores that the caller gave up.
func (l *link) call(ctx context.Context, head, body []byte) ([]byte, error) {
	c := &pendingCall{reply: make(chan outcome, 1)}
	id, err := l.register(c)
	if err != nil {
		return nil, err
	}
	if err := l.send(ctx, kindCall, id, head, body); err != nil {
		l.forget(id)
		return nil, err
	}
	select {
	case a := <-c.reply:
		return a.data, a.err
	case <-ctx.Done():
	}
	l.abandon(id)
	select {
	case a := <-c.reply: // it came at the same moment
		return a.data, a.err
	default:
		return nil, ctx.Err()
	}
}

func (l *link) register(c *pendingCall) (uint32, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, ErrNotSent
	}
	if len(l.pending) >= maxCalls {
		return 0, nex.Errorf(nex.Overloaded, "%d calls are in flight to this machine", maxCalls)
	}
	for {
		l.lastID++
		if _, taken := l.pending[l.lastID]; !taken && l.lastID != 0 {
			l.pending[l.lastID] = c
			return l.lastID, nil
		}
	}
}

func (l *link) forget(id uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pending, id)
}

// abandon tells the other end to stop a call and keeps its id reserved until
// the answer is in.
func (l *link) abandon(id uint32) {
	l.mu.Lock()
	c := l.pending[id]
	if c != nil {
		c.hung = time.AfterFunc(hangAfter, func() { l.fail(errHung) })
	}
	l.mu.Unlock()
	if c == nil {
		return
	}
	select { // a full queue loses the hint only: calls carry their deadline
	case l.out <- frame{kind: kindCancel, id: id}:
	default:
	}
}
