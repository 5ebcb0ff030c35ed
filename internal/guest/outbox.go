package guest

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	// crowded is how many bytes may wait for the stream before senders that
	// can wait do so.
	crowded = 1 << 20
	// full is how many may wait before calls are refused.
	full = 16 << 20
	// spare is the largest buffer that is kept for later, in bytes.
	spare = 256 << 10
)

// outbox holds frames until the stream takes them. A frame that need not wait
// is written by whoever brings it, which saves the way through another
// goroutine; the writer takes what the stream did not, and what comes in
// numbers, so that one write carries many.
type outbox struct {
	conn net.Conn
	try  func([]byte) int // writes what goes without waiting; nil if the stream cannot
	kick chan struct{}    // wakes the writer

	mu      sync.Mutex
	waiting []byte        // frames in order
	free    []byte        // the other buffer, while nothing is written
	writing bool          // somebody is; others only add to waiting
	taken   chan struct{} // closed when waiting became shorter
}

// leave says when a frame is to leave.
type leave int

const (
	soon   leave = iota // with others, by the writer
	atOnce              // written by whoever brings it if that needs no waiting
	later               // when somebody calls release
)

func newOutbox(conn net.Conn) *outbox {
	return &outbox{conn: conn, try: writeNow(conn), kick: make(chan struct{}, 1), taken: make(chan struct{})}
}

// add queues a frame whatever waits already.
func (o *outbox) add(f frame, how leave) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.addLocked(f, how)
}

// offer queues a frame unless so many bytes wait already, and reports whether
// it did; if not, wait is closed when that has changed.
func (o *outbox) offer(f frame, how leave, limit int) (ok bool, wait <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) >= limit {
		if !o.writing {
			o.wake() // what waits may be held back for a release that this sender puts off
		}
		return false, o.taken
	}
	o.addLocked(f, how)
	return true, nil
}

func (o *outbox) addLocked(f frame, how leave) {
	o.waiting = appendFrame(o.waiting, f)
	switch {
	case how == later || o.writing: // whoever writes sees to the rest
	case how == atOnce && o.try != nil:
		o.tryLocked()
	default:
		o.wake()
	}
}

// release writes what waits, as far as that needs no waiting.
func (o *outbox) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case len(o.waiting) == 0 || o.writing:
	case o.try != nil:
		o.tryLocked()
	default:
		o.wake()
	}
}

func (o *outbox) tryLocked() {
	batch := o.beginLocked()
	o.mu.Unlock()
	n := o.try(batch)
	o.mu.Lock()
	if n < len(batch) {
		o.waiting = append(batch[n:len(batch):len(batch)], o.waiting...)
		batch = nil
	}
	o.endLocked(batch)
	if len(o.waiting) > 0 {
		o.wake()
	}
}

// beginLocked takes what waits, to be written by the caller alone.
func (o *outbox) beginLocked() []byte {
	batch := o.waiting
	o.waiting, o.free, o.writing = o.free[:0], nil, true
	return batch
}

func (o *outbox) endLocked(batch []byte) {
	o.writing = false
	if cap(batch) <= spare {
		o.free = batch
	}
	close(o.taken)
	o.taken = make(chan struct{})
}

func (o *outbox) wake() {
	select {
	case o.kick <- struct{}{}:
	default:
	}
}

// write is the writer: it writes what waits until done is closed or the stream
// fails.
func (o *outbox) write(done <-chan struct{}) error {
	for {
		select {
		case <-done:
			return nil
		case <-o.kick:
		}
		if err := o.flush(); err != nil {
			return err
		}
	}
}

func (o *outbox) flush() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.waiting) > 0 && !o.writing {
		batch := o.beginLocked()
		o.mu.Unlock()
		_, err := o.conn.Write(batch)
		o.mu.Lock()
		if err != nil {
			return err // writing stays true: nothing more goes out
		}
		o.endLocked(batch)
	}
	return nil
}

// put queues a frame as soon as there is room.
func (o *outbox) put(ctx context.Context, done <-chan struct{}, f frame, how leave) error {
	for {
		ok, wait := o.offer(f, how, crowded)
		if ok {
			return nil
		}
		select {
		case <-wait:
		case <-done:
			return ErrNotSent
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// insist is put for a frame that must not be missing: it reports false if
// there was no room for too long.
func (o *outbox) insist(done <-chan struct{}, f frame) bool {
	ctx, cancel := context.WithDeadline(context.Background(), time.Now().Add(hangAfter))
	defer cancel()
	return o.put(ctx, done, f, soon) == nil
}

// writeNow returns the way to write without waiting that a stream has; nil if
// it has none.
func writeNow(conn net.Conn) func([]byte) int {
	if c, ok := conn.(interface{ WriteNow([]byte) int }); ok {
		return c.WriteNow
	}
	return nil
}
