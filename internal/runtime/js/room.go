package js

import (
	"context"
	"errors"
	"math/bits"
	"time"

	"nex"
	"nex/internal/runtime"
)

// room is an isolate and the calls in it. All but the isolate is guarded by the
// pool's mu; the isolate belongs to the call that has the turn.
type room struct {
	Isolate
	pool    *pool
	taken   bool             // a call has the turn
	turn    Turn             // the latest; its call may read it without the lock
	came    bool             // the latest turn was of a call that just came
	due     int              // in whose turn there is something to do when the clock says so
	present uint64           // the slots of those that wait
	guests  [MaxCalls]*guest // who waits, by slot
	poked   bool             // there may be something to do for them, since the turn began
	crowded bool             // as the latest step says
	closing bool             // it takes no more calls
	clock   *time.Timer      // wakes the room; nil until a call waited
	since   time.Time        // it is idle
}

// guest is a call that waits.
type guest struct {
	deadline time.Time  // zero for none
	turn     chan error // has room for what it gets: the turn, which is nil, or why there is none
}

// open reports whether a call that comes can have the turn at once. The pool is
// locked.
func (r *room) open() bool {
	return !r.taken && !r.closing && !r.crowded && r.present != ^uint64(0)
}

// enter gives the turn to a call that comes. The pool is locked.
func (r *room) enter() {
	r.begin(bits.TrailingZeros64(^r.present))
	r.came = true
}

// begin gives the turn to the call in the slot. The pool is locked.
func (r *room) begin(slot int) {
	r.taken, r.poked, r.came = true, false, false
	r.turn = Turn{Slot: slot, Others: r.present}
}

// run has the call that has the turn go from its begin to its end.
func (r *room) run(ctx context.Context, c Call) (_ runtime.Reply, err error) {
	inside, panicked := true, true
	step := Step{}
	defer func() {
		if panicked {
			err = errPanic{recover()}
		}
		if inside {
			r.give(step, err)
		}
	}()
	c.Turn = r.turn
	step, err = r.Call(ctx, c)
	for err == nil && step.Waits {
		if err = r.wait(ctx, c.Slot, step); err != nil {
			inside = false
			break
		}
		step, err = r.Resume(ctx, r.turn)
	}
	panicked = false
	return step.Reply, err
}

// wait gives the turn up until there is something to do for the call in the slot.
// After an error that call is no more in the room.
func (r *room) wait(ctx context.Context, slot int, s Step) error {
	g := &guest{turn: make(chan error, 1)}
	g.deadline, _ = ctx.Deadline()
	r.pool.mu.Lock()
	r.guests[slot] = g
	r.present |= 1 << slot
	r.pass(s)
	r.pool.mu.Unlock()
	select {
	case err := <-g.turn:
		if err != nil || ctx.Err() == nil {
			return err
		}
		g.turn <- nil // but it is late, and its code would be stopped
	case <-ctx.Done():
	}
	r.lose(slot, g)
	return ErrStopped
}

// lose takes a call out that is late. What it left in the isolate must not meet
// other calls, so that takes no more of them.
func (r *room) lose(slot int, g *guest) {
	p := r.pool
	p.mu.Lock()
	r.closing = true
	if r.guests[slot] == g {
		r.guests[slot] = nil
		r.present &^= 1 << slot
		last := !r.taken && r.present == 0
		if last {
			p.forget(r)
		}
		p.mu.Unlock()
		if last {
			r.close()
			p.gone(1)
		}
		return
	}
	p.mu.Unlock()
	if <-g.turn == nil { // it just got the turn
		r.give(Step{}, nil)
	}
}

// give ends the turn of a call that left the room, with that error.
func (r *room) give(s Step, err error) {
	cause := broke(err)
	usable := cause == nil && r.Usable()
	p := r.pool
	p.mu.Lock()
	if !usable {
		r.closing = true
	}
	if cause != nil {
		r.end(cause)
	}
	left := false
	if r.present != 0 {
		r.pass(s)
	} else {
		r.taken = false
		if left = !p.rest(r); left {
			p.forget(r)
		}
	}
	p.mu.Unlock()
	if left {
		r.close()
		p.gone(1)
	}
}

// broke returns why no code may run any more in the isolate of a call that
// ended with err, as the calls that wait there hear it; or nil.
func broke(err error) error {
	if err == nil {
		return nil
	}
	var panicked errPanic
	why := ""
	switch {
	case errors.Is(err, ErrStopped):
		why = "it was stopped while its code ran"
	case errors.Is(err, ErrMemory):
		why = "it passed the memory limit"
	case errors.As(err, &panicked):
		why = panicked.Error()
	default:
		return nil
	}
	return nex.Errorf(nex.Unavailable, "another call of this function ended its isolate: %s", why)
}

// end tells those that wait that they never get the turn. The pool is locked.
func (r *room) end(cause error) {
	for ; r.present != 0; r.present &= r.present - 1 {
		slot := bits.TrailingZeros64(r.present)
		r.guests[slot].turn <- cause
		r.guests[slot] = nil
	}
}

// pass ends a turn after which calls wait: for one of them there is something to
// do, or one comes that found no room. The pool is locked.
func (r *room) pass(s Step) {
	r.taken, r.crowded = false, s.Crowded
	ready := s.Ready & r.present
	if due := ready != 0 || s.Next <= 0 || r.poked; !due {
		r.due = s.For
		r.set(time.Duration(s.Next) * time.Millisecond)
		r.pool.serve()
		return
	}
	if !r.came { // else it is the others' turn, whoever else comes
		if r.pool.serve(); r.taken {
			return
		}
	}
	if ready != 0 {
		after := r.turn.Slot + 1 // so that all have their turn
		r.admit((after+bits.TrailingZeros64(bits.RotateLeft64(ready, -after)))%MaxCalls, false)
		return
	}
	r.do(s.For)
}

// set has the room woken after a while. The pool is locked.
func (r *room) set(after time.Duration) {
	if r.clock == nil {
		r.clock = time.AfterFunc(after, func() { r.wake(-1) })
		return
	}
	r.clock.Reset(after)
}

// admit gives the turn to one that waits; any is for that turn. The pool is
// locked.
func (r *room) admit(slot int, any bool) {
	g := r.guests[slot]
	r.guests[slot] = nil
	r.present &^= 1 << slot
	r.begin(slot)
	r.turn.Any = any
	g.turn <- nil
}

// do gives the turn to the call in the slot, as there is something to do in it,
// or to another one when that is gone. The pool is locked.
func (r *room) do(slot int) {
	if r.guests[slot] != nil {
		r.admit(slot, false)
		return
	}
	r.admit(r.patient(), true)
}

// patient returns the slot of the one that waits whose deadline is the last: what
// is done in its turn is not its own, and must not end with it. The pool is
// locked.
func (r *room) patient() int {
	best := bits.TrailingZeros64(r.present)
	for rest := r.present; rest != 0; rest &= rest - 1 {
		slot := bits.TrailingZeros64(rest)
		due, than := r.guests[slot].deadline, r.guests[best].deadline
		if !than.IsZero() && (due.IsZero() || due.After(than)) {
			best = slot
		}
	}
	return best
}

// wake has it that the call in the slot gets the turn, or, when that is negative,
// the one that the clock was set for.
func (r *room) wake(slot int) {
	r.pool.mu.Lock()
	defer r.pool.mu.Unlock()
	if slot < 0 {
		slot = r.due
	}
	if r.taken {
		r.poked = true
	} else if r.present != 0 {
		r.do(slot)
	}
}

// close frees the isolate.
func (r *room) close() {
	r.pool.mu.Lock()
	if r.clock != nil {
		r.clock.Stop()
	}
	r.pool.mu.Unlock()
	r.Isolate.Close()
}
