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
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"nex"
)

const (
	// maxCalls is how many calls may be in flight in one direction.
	maxCalls = 4096
	// maxLong is how many messages of more than one frame are on their way
	// at once in one direction, so that few are unfinished at the other end.
	maxLong = 2
	// maxAsked is how many bytes the calls of an end that is not trusted may
	// have together.
	maxAsked = 2 * MaxMessage
	// maxOwed is how many bytes the answers may have that such an end has not
	// taken yet.
	maxOwed = 4 * MaxMessage
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
var errHung = errors.New("the agent has hung: it does not answer")

// ErrNotSent is the error of a call that never left, because the link had
// ended: it may be made again on another link.
var ErrNotSent = nex.Errorf(nex.Unavailable, textLost)

// textLost tells callers that a link has ended.
const textLost = "the machine running this workload was lost"

// method names what a call asks for.
type method uint8

// serveFunc answers calls of the other end, on a goroutine of its own each.
type serveFunc func(c *serving, m method, body []byte) (head, reply []byte, err error)

// noticeFunc takes notices of the other end. It runs on the reader and must
// not block for long; its error ends the link.
type noticeFunc func(body []byte) error

// link is one end of the stream.
type link struct {
	conn   net.Conn
	in     *source
	r      *bufio.Reader // of in
	serve  serveFunc     // nil: the other end must not call
	notice noticeFunc    // nil: the other end must not send notices
	blame  blameFunc     // nil: nobody asks
	// guarded says that the other end is not trusted: what it asks must not hold
	// up the reader, nor fill the memory.
	guarded bool

	outbox *outbox
	turn   turn
	// inside says that the reader reads while the code of a call waits: it works
	// on no other. It belongs to the reader.
	inside bool
	long   chan struct{} // a token per long message being sent
	jobs   chan job      // calls for workers that are free
	free   atomic.Int32  // how many are
	done   chan struct{} // closed when the link has ended
	wg     sync.WaitGroup

	mu      sync.Mutex
	err     error                   // why the link ended
	lastID  uint32                  // of our calls
	pending map[uint32]*pendingCall // ours
	alarm   *time.Timer             // see ring
	alarmAt time.Time               // zero if it is not set
	serving map[uint32]*serving     // theirs
	working int                     // theirs whose answer is not queued yet
	asked   int                     // bytes of those calls
	owed    int                     // bytes of answers that are not queued yet
	parts   map[partKey][]byte      // unfinished messages, maxLong at most
	held    int                     // bytes in parts
	cancels int                     // how many more the other end may send, see takeCancel
}

type partKey struct {
	kind kind
	id   uint32
}

// pendingCall is a call of ours that the other end has not answered.
type pendingCall struct {
	done func(outcome) // must not block; nil once the caller gave up
	who  string        // the workload whose code it runs, if any
	// due is when the caller gives up, zero if it does so itself; after
	// that, when the other end counts as hung.
	due time.Time
}

type outcome struct {
	data []byte
	err  error
}

func newLink(conn net.Conn, serve serveFunc, notice noticeFunc) *link {
	in := &source{Conn: conn}
	return &link{
		conn: conn, in: in, r: bufio.NewReaderSize(in, 64<<10), serve: serve, notice: notice, outbox: newOutbox(conn),
		long: make(chan struct{}, maxLong), jobs: make(chan job), done: make(chan struct{}),
		pending: map[uint32]*pendingCall{}, serving: map[uint32]*serving{}, parts: map[partKey][]byte{}, cancels: maxCalls,
	}
}

// start runs the reader and the writer.
func (l *link) start() {
	l.wg.Go(l.read)
	l.wg.Go(func() {
		if err := l.outbox.write(l.done); err != nil {
			if errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) {
				l.fail(errEnded) // the reader may not have seen it yet
			}
			l.fail(fmt.Errorf("write to guest link: %w", err))
		}
	})
}

// fail ends the link for a reason, once. It does not wait. Culprits are the
// workloads that are known to be the reason.
func (l *link) fail(err error, culprits ...string) {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	l.err = err
	l.blameLocked(culprits)
	close(l.done)
	_ = l.conn.Close() // the link is over; there is nobody to tell
	if l.alarm != nil {
		l.alarm.Stop()
	}
	var lost []func()
	for _, c := range l.pending {
		if done, o := c.done, c.loss(culprits); done != nil {
			lost = append(lost, func() { done(o) })
		}
	}
	clear(l.pending)
	for _, s := range l.serving {
		s.end(context.Canceled)
	}
	l.mu.Unlock()
	for _, tell := range lost {
		tell()
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

// send queues a message, and waits while too much is queued.
func (l *link) send(ctx context.Context, k kind, id uint32, head, body []byte, how leave) error {
	if err := fits(head, body); err != nil {
		return err
	}
	if len(head)+len(body) <= maxFrame {
		return l.outbox.put(ctx, l.done, frame{kind: k, id: id, head: head, body: body}, how)
	}
	select {
	case l.long <- struct{}{}:
		defer func() { <-l.long }()
	case <-l.done:
		return ErrNotSent
	case <-ctx.Done():
		return ctx.Err()
	}
	for i, f := range split(k, id, head, body) {
		err := l.outbox.put(ctx, l.done, f, soon)
		if err == nil {
			continue
		}
		if i == 0 {
			return err
		}
		if errors.Is(err, ErrNotSent) || !l.insist(f) { // a half-sent message cannot be taken back
			return nex.Errorf(nex.Unavailable, textLost)
		}
	}
	return nil
}

// fits refuses a message that is over the limit.
func fits(head, body []byte) error {
	if len(head)+len(body) > MaxMessage {
		return nex.Errorf(nex.Invalid, "message of %d bytes is over the limit of %d", len(head)+len(body), MaxMessage)
	}
	return nil
}

// insist queues a frame, and takes the other end for hung if it cannot.
func (l *link) insist(f frame) bool {
	ok := l.outbox.insist(l.done, f)
	if !ok {
		l.fail(errHung)
	}
	return ok
}

// call asks the other end, for the code of who if that is to run, and waits for
// the answer or ctx. The link ends if the other end ignores that the caller
// gave up.
func (l *link) call(ctx context.Context, who string, head, body []byte) ([]byte, error) {
	reply := make(chan outcome, 1)
	id, err := l.register(&pendingCall{done: func(o outcome) { reply <- o }, who: who})
	if err != nil {
		return nil, err
	}
	if err := l.send(ctx, kindCall, id, head, body, atOnce); err != nil {
		l.forget(id)
		return nil, err
	}
	select {
	case a := <-reply:
		return a.data, a.err
	case <-ctx.Done():
	}
	l.abandon(id)
	select {
	case a := <-reply: // it came at the same moment
		return a.data, a.err
	default:
		return nil, ctx.Err()
	}
}

// begin asks the other end without waiting for anything: done gets the answer,
// once, or why there is none until due. It may be called before begin returns,
// and must not block.
func (l *link) begin(who string, head, body []byte, due time.Time, how leave, done func(outcome)) {
	id, err := l.register(&pendingCall{done: done, who: who, due: due})
	if err != nil {
		done(outcome{err: err})
		return
	}
	if len(head)+len(body) > maxFrame {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.err == nil { // else the call is answered, and close may wait no more
			l.wg.Go(func() { l.beginLong(id, head, body, due) })
		}
		return
	}
	f := frame{kind: kindCall, id: id, head: head, body: body}
	if ok, _ := l.outbox.offer(f, how, full); !ok {
		l.settle(id, outcome{err: nex.Errorf(nex.Overloaded, "%d bytes wait to be sent to this machine", full)})
	}
}

func (l *link) beginLong(id uint32, head, body []byte, due time.Time) {
	ctx, cancel := context.WithDeadline(context.Background(), due)
	defer cancel()
	if err := l.send(ctx, kindCall, id, head, body, soon); err != nil {
		l.settle(id, outcome{err: err})
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.pending[id]; c != nil && c.done == nil {
		// It was given up on its way: what told the other end so came before
		// the end of the call, and meant nothing there.
		l.outbox.add(frame{kind: kindCancel, id: id}, soon)
	}
}

// settle ends a call that the other end does not know of.
func (l *link) settle(id uint32, o outcome) {
	if done := l.forget(id); done != nil {
		done(o)
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
			break
		}
	}
	l.pending[l.lastID] = c
	if !c.due.IsZero() {
		l.watchLocked(c.due)
	}
	return l.lastID, nil
}

// forget drops a call and returns whom to tell, if anybody.
func (l *link) forget(id uint32) func(outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.pending[id]
	delete(l.pending, id)
	if c == nil {
		return nil
	}
	return c.done
}

// abandon gives up a call.
func (l *link) abandon(id uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.pending[id]; c != nil {
		l.abandonLocked(id, c)
	}
}
