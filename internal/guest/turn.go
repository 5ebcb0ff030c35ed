package guest

import (
	"cmp"
	"context"
	"sync/atomic"
	"time"
)

const (
	// quick is how long a call may take to count as quick. One that waits
	// for the other end may do so from one wait to the next: the reader reads then.
	quick = 200 * time.Microsecond
	// slow is how many calls that follow each other must not be quick for the
	// reader to leave them to others. One alone may have been disturbed.
	slow = 3
	// overdue is how often the reader is looked after while it works.
	overdue = 3 * time.Millisecond
	// restful is how many such looks without work are the last.
	restful = 20
)

// turn is the right to read from a link. The reader of an agent works on calls
// itself while they are quick, which spares them the way to another goroutine;
// when one turns out not to be, the turn passes to a new reader and the old one
// only finishes that call.
type turn struct {
	// state counts up: odd while the reader works on a call. A number that
	// was added by somebody else tells the reader that it is one no more.
	state atomic.Uint64
	slow  atomic.Int32 // how many of the latest calls were not quick
	awake atomic.Bool  // mind runs
}

// judge notes how long a call ran between its waits for the other end.
func (t *turn) judge(ran time.Duration) {
	switch {
	case ran > quick:
		t.slow.Add(1)
	case t.slow.Load() != 0:
		t.slow.Store(0)
	}
}

// begin notes that the reader works on a call, and reports whether nobody minds
// it: then the caller starts mind.
func (t *turn) begin() (v uint64, alone bool) {
	v = t.state.Add(1) // first, so that rest sees it or is seen
	return v, !t.awake.Load() && t.awake.CompareAndSwap(false, true)
}

// rest reports whether mind may end, which saw the state v last.
func (t *turn) rest(v uint64) bool {
	t.awake.Store(false)
	// A call that began before this store is seen now; one that begins later
	// has another started.
	return t.state.Load() == v || !t.awake.CompareAndSwap(false, true)
}

// workInTurn runs a call on the reader's goroutine, and reports whether that still
// has the turn.
func (l *link) workInTurn(j job) bool {
	j.s.turn = l.beginTurn()
	l.answer(j, false)
	if l.endTurn(j.s) {
		return true
	}
	l.outbox.release() // the new reader does not know of this answer
	return false
}

// beginTurn notes that the reader works on a call, and has that minded.
func (l *link) beginTurn() (v uint64) {
	v, alone := l.turn.begin()
	if alone {
		l.wg.Go(l.mind)
	}
	return v
}

// endTurn notes that the reader does not work on a call any more, and reports
// whether it is the reader still.
func (l *link) endTurn(s *serving) bool { return l.turn.state.CompareAndSwap(s.turn, s.turn+1) }

// callInTurn is call for code that the reader works on. The reader reads on
// while it waits, so that the answer comes to the goroutine that wants it. done
// is false if the turn has passed to another; then nothing has been sent.
func (l *link) callInTurn(ctx context.Context, s *serving, head, body []byte) (data []byte, err error, done bool) {
	if s.turn == 0 || !l.endTurn(s) {
		return nil, nil, false
	}
	l.inside = true
	defer func() {
		l.inside = false
		s.turn = l.beginTurn()
	}()
	reply := make(chan outcome, 1)
	id, err := l.register(&pendingCall{done: func(o outcome) { reply <- o }})
	if err != nil {
		return nil, err, true
	}
	if err := l.send(ctx, kindCall, id, head, body, atOnce); err != nil {
		l.forget(id)
		return nil, err, true
	}
	if due, ok := ctx.Deadline(); ok {
		_ = l.in.SetReadDeadline(due) // fails only on a closed conn, as below
		defer func() { _ = l.in.SetReadDeadline(time.Time{}) }()
	}
	for {
		select {
		case o := <-reply:
			return o.data, o.err, true
		default:
		}
		// A cancel that the reader has just taken may not have reached ctx yet.
		if err := cmp.Or(s.Err(), ctx.Err()); err != nil {
			l.abandon(id)
			return nil, err, true
		}
		if l.comes() {
			_, _ = l.readOne() // an error ends the link, and that the call
		}
	}
}

// mind passes the turn on when the reader is held up by a call.
func (l *link) mind() {
	t := time.NewTicker(overdue)
	defer t.Stop()
	last, rest := l.turn.state.Load(), 0
	for {
		select {
		case <-t.C:
		case <-l.done:
			return
		}
		v := l.turn.state.Load()
		switch {
		case v != last:
			last, rest = v, 0
		case v%2 == 1 && l.turn.state.CompareAndSwap(v, v+1):
			l.turn.slow.Store(slow)
			l.outbox.wake() // for the answers that the reader held back
			l.wg.Go(l.read)
		default:
			rest++
		}
		if rest > restful && v%2 == 0 {
			if l.turn.rest(v) {
				return
			}
			rest = 0
		}
	}
}
