package js

import (
	"context"
	"errors"
	"testing"
	"time"

	"nex"
	"nex/internal/runtime"
)

// patience bounds what is expected to come soon.
const patience = 30 * time.Second

// waiter is a fake isolate whose calls wait until they are woken, and then end.
type waiter struct {
	fake
	entered chan int // the slot of each call
	resumed chan Turn
}

func (w *waiter) Call(_ context.Context, c Call) (Step, error) {
	w.entered <- c.Slot
	return Step{Waits: true, Next: 1 << 20}, nil
}

func (w *waiter) Resume(_ context.Context, t Turn) (Step, error) {
	w.resumed <- t
	return Step{Reply: runtime.Reply{Payload: []byte("end")}, Next: 1 << 20}, nil
}

// waiters returns a pool of one isolate, with that, after n calls came to it that
// have a minute, and where they end.
func waiters(t *testing.T, n int) (*pool, *waiter, chan error) {
	t.Helper()
	w := &waiter{entered: make(chan int, MaxCalls), resumed: make(chan Turn, MaxCalls)}
	p := newPool(1, func(context.Context, func(int)) (Isolate, error) { return w, nil })
	ended := make(chan error, MaxCalls)
	for range n {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		t.Cleanup(cancel)
		w.begin(ctx, t, p, ended)
		await(t, w.entered)
	}
	return p, w, ended
}

func (w *waiter) begin(ctx context.Context, t *testing.T, p *pool, ended chan error) {
	go func() {
		r, err := p.take(ctx)
		if err == nil {
			_, err = r.run(ctx, Call{})
		}
		ended <- err
	}()
}

func await[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("it does not come")
	}
	return v
}

// So many calls wait in an isolate and no more; the next one gets the place of
// one that ends.
func TestRoomIsFull(t *testing.T) {
	p, w, ended := waiters(t, MaxCalls)
	late, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.take(late); nex.CodeOf(err) != nex.Overloaded {
		t.Errorf("one more: %v", err)
	}
	more := make(chan error, 1)
	w.begin(t.Context(), t, p, more)
	p.rooms[0].wake(7)
	if got := await(t, w.resumed); got.Slot != 7 || got.Any || got.Others != ^uint64(1<<7) {
		t.Errorf("%+v", got)
	}
	if err := await(t, ended); err != nil {
		t.Error(err)
	}
	if slot := await(t, w.entered); slot != 7 {
		t.Errorf("the next call has the slot %d", slot)
	}
	for slot := range MaxCalls {
		p.rooms[0].wake(slot)
		from := ended
		if slot == 7 {
			from = more
		}
		if err := await(t, from); err != nil {
			t.Error(err)
		}
	}
	if err := p.close(t.Context()); err != nil || !w.closed.Load() {
		t.Errorf("closed: %t, %v", w.closed.Load(), err)
	}
}

// What is due for a call that is gone is done in the turn of the one that has the
// most time left.
func TestTurnForThoseThatAreGone(t *testing.T) {
	p, w, ended := waiters(t, 2)
	long := make(chan error, 1)
	w.begin(context.Background(), t, p, long)
	slot := await(t, w.entered)
	p.rooms[0].wake(60)
	if got := await(t, w.resumed); got.Slot != slot || !got.Any {
		t.Errorf("the turn was %+v, want one of slot %d for any", got, slot)
	}
	if err := await(t, long); err != nil {
		t.Error(err)
	}
	for slot := range 2 {
		p.rooms[0].wake(slot)
		if err := await(t, ended); err != nil {
			t.Error(err)
		}
	}
	if err := p.close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A caller whose time is over just when it gets a room, or may make one, passes
// that on.
func TestCallersPassOnWhatTheyDoNotTake(t *testing.T) {
	f := &fakes{}
	p := newPool(1, f.fresh)
	a := take(t, p)
	queue := func() (first *caller, second chan error) {
		first, second = &caller{got: make(chan offer, 1)}, make(chan error, 1)
		p.mu.Lock()
		p.line = append(p.line, first)
		p.mu.Unlock()
		go func() {
			r, err := p.take(context.Background())
			if err == nil {
				r.give(Step{}, nil)
			}
			second <- err
		}()
		return first, second
	}

	first, second := queue()
	a.give()
	p.giveUp(first)
	if err := await(t, second); err != nil {
		t.Error(err)
	}

	b := take(t, p)
	first, second = queue()
	b.worn = true
	b.give()
	p.giveUp(first)
	if err := await(t, second); err != nil {
		t.Error(err)
	}
	if len(f.made) != 2 {
		t.Errorf("%d isolates made, want 2", len(f.made))
	}

	c := take(t, p)
	first, second = queue()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.close(ended); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	p.giveUp(first)
	if err := await(t, second); nex.CodeOf(err) != nex.Unavailable {
		t.Errorf("in the line of a pool that was closed: %v", err)
	}
	c.give()
	if err := p.close(t.Context()); err != nil {
		t.Error(err)
	}
}
