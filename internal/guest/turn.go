package guest

import (
	"sync/atomic"
	"time"
)

const (
	// quick is how long a call may take to count as quick.
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

// judge notes how long a call took.
func (t *turn) judge(took time.Duration) {
	switch {
	case took > quick:
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
	v, alone := l.turn.begin()
	if alone {
		l.wg.Go(l.mind)
	}
	l.answer(j, false)
	if l.turn.state.CompareAndSwap(v, v+1) {
		return true
	}
	l.outbox.release() // the new reader does not know of this answer
	return false
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
