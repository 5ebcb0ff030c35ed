package quickjs

import (
	"context"
	"math/bits"

	lib "modernc.org/libquickjs"

	"nex/internal/runtime/js"
)

// waiting is a call that waits.
type waiting struct {
	promise value // one of those held
	held    []value
}

// errWaits says that a promise is pending, and until when there is nothing to do.
type errWaits struct {
	promise value
	when    int // as the prelude's tick says it
}

func (errWaits) Error() string { return "the call waits" }

// Call implements [js.Isolate].
func (i *isolate) Call(ctx context.Context, c js.Call) (s js.Step, err error) {
	defer i.enter(ctx)(&err)
	i.turn = c.Turn
	i.helper.Join(&c)
	return i.step(c.Turn, i.invoke(c))
}

// Resume implements [js.Isolate].
func (i *isolate) Resume(ctx context.Context, t js.Turn) (s js.Step, err error) {
	defer i.enter(ctx)(&err)
	i.turn = t
	i.helper.Turn(t)
	w := &i.waiting[t.Slot]
	promise, held := w.promise, i.held
	i.held, w.held = w.held, held
	return i.step(t, promise)
}

// step goes on with a call whose value, so far, is v, and ends the turn.
func (i *isolate) step(t js.Turn, v value) (js.Step, error) {
	i.header = ""
	reply, err := i.run(v)
	w, waits := err.(errWaits)
	s := js.Step{Reply: reply, Waits: waits, Crowded: i.heap.used > i.heap.limit/2}
	switch {
	case waits:
		err, s.Next, s.For = nil, w.when/js.MaxCalls, w.when%js.MaxCalls
		other := &i.waiting[t.Slot]
		other.promise, other.held, i.held = w.promise, i.held, other.held[:0]
	case t.Others != 0 && !i.interrupted && !i.heap.exhausted:
		if when := int(integer(i.call(i.prelude.next, undefined))); when < 0 {
			s.Next = when
		} else {
			s.Next, s.For = when/js.MaxCalls, when%js.MaxCalls
		}
	case t.Others == 0:
		i.helper.Drop()
	}
	if waits || t.Others != 0 {
		s.Ready = i.ready()
		if slot, ok := i.helper.Came(); ok {
			s.Next, s.For = 0, slot
		}
	}
	i.done()
	return s, err
}

// ready returns the slots of other calls whose promise is settled.
func (i *isolate) ready() (slots uint64) {
	for rest := i.turn.Others; rest != 0; rest &= rest - 1 {
		slot := bits.TrailingZeros64(rest)
		if lib.XJS_PromiseState(i.tls, i.ctx, i.waiting[slot].promise) != lib.EJS_PROMISE_PENDING {
			slots |= 1 << slot
		}
	}
	return slots
}
