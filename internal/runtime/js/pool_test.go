package js

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"nex"
)

// fake is an isolate whose number tells it apart.
type fake struct {
	number int
	worn   bool
	closed atomic.Bool
}

func (f *fake) Call(context.Context, Call) (Step, error)   { return Step{}, nil }
func (f *fake) Resume(context.Context, Turn) (Step, error) { return Step{}, nil }
func (f *fake) Usable() bool                               { return !f.worn }
func (f *fake) Close()                                     { f.closed.Store(true) }

// fakes makes fakes, and fails with err or panics where asked to.
type fakes struct {
	mu    sync.Mutex
	made  []*fake // guarded by mu
	err   error
	panic bool
}

func (f *fakes) fresh(context.Context, func(int)) (Isolate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.panic {
		panic("fresh")
	}
	if f.err != nil {
		return nil, f.err
	}
	iso := &fake{number: len(f.made)}
	f.made = append(f.made, iso)
	return iso, nil
}

// out is a fake that a call has the turn in.
type out struct {
	*fake
	room *room
}

func take(t *testing.T, p *pool) out {
	t.Helper()
	r, err := p.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return out{r.Isolate.(*fake), r}
}

// give ends the call.
func (o out) give() { o.room.give(Step{}, nil) }

func TestPoolHandsOutTheLastUsed(t *testing.T) {
	f := &fakes{}
	p := newPool(3, f.fresh)
	a, b := take(t, p), take(t, p)
	a.give()
	b.give()
	if got := take(t, p); got != b {
		t.Errorf("took isolate %d, want %d", got.number, b.number)
	}
	if got := take(t, p); got != a {
		t.Errorf("took isolate %d, want %d", got.number, a.number)
	}
	if len(f.made) != 2 {
		t.Errorf("%d isolates made, want 2", len(f.made))
	}
}

func TestPoolReplacesTheUnusable(t *testing.T) {
	f := &fakes{}
	p := newPool(1, f.fresh)
	a := take(t, p)
	a.worn = true
	a.give()
	if !a.closed.Load() {
		t.Error("the worn isolate was not closed")
	}
	if got := take(t, p); got == a {
		t.Error("the worn isolate was handed out again")
	}
}

func TestPoolSurvivesFailures(t *testing.T) {
	f := &fakes{err: errors.New("no isolate")}
	p := newPool(1, f.fresh)
	for range 3 {
		if _, err := p.take(t.Context()); !errors.Is(err, f.err) {
			t.Errorf("take: %v", err)
		}
	}
	f.panic = true
	for range 3 {
		err := func() (err error) {
			defer recoverInto(&err)
			_, err = p.take(t.Context())
			return err
		}()
		if err == nil || !strings.Contains(err.Error(), "fresh") {
			t.Errorf("take: %v", err)
		}
	}
	f.panic, f.err = false, nil
	take(t, p).give()
	if err := p.close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPoolWaits(t *testing.T) {
	f := &fakes{}
	p := newPool(1, f.fresh)
	a := take(t, p)
	got := make(chan *room)
	go func() {
		r, err := p.take(context.Background())
		if err != nil {
			t.Error(err)
		}
		got <- r
	}()
	a.give()
	if r := <-got; r != a.room {
		t.Error("the waiting call got another isolate")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.take(ended); !errors.Is(err, ErrStopped) {
		t.Errorf("take after the end of the context: %v", err)
	}
}

func TestPoolClose(t *testing.T) {
	f := &fakes{}
	p := newPool(3, f.fresh)
	a, b, c := take(t, p), take(t, p), take(t, p)
	a.give()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.close(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("close with isolates out: %v", err)
	}
	if !a.closed.Load() || b.closed.Load() {
		t.Errorf("idle closed: %t, out closed: %t", a.closed.Load(), b.closed.Load())
	}
	b.worn = true
	b.give()
	c.give()
	if err := p.close(t.Context()); err != nil {
		t.Error(err)
	}
	if !b.closed.Load() || !c.closed.Load() {
		t.Error("an isolate that came back was not closed")
	}
	if _, err := p.take(t.Context()); nex.CodeOf(err) != nex.Unavailable {
		t.Errorf("take after close: %v", err)
	}
}

func TestPoolHammer(t *testing.T) {
	f := &fakes{}
	p := newPool(4, f.fresh)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			iso := take(t, p)
			iso.worn = i%7 == 0
			iso.give()
		})
	}
	wg.Wait()
	if err := p.close(t.Context()); err != nil {
		t.Error(err)
	}
	for _, iso := range f.made {
		if !iso.closed.Load() {
			t.Errorf("isolate %d was not closed", iso.number)
		}
	}
}

func TestClip(t *testing.T) {
	for _, text := range []string{"", "short", strings.Repeat("x", maxText)} {
		if got := clip(text); got != text {
			t.Errorf("a text of %d bytes was cut to %d", len(text), len(got))
		}
	}
	for _, text := range []string{strings.Repeat("é", maxText), "x" + strings.Repeat("€", maxText), strings.Repeat("\x80", 2*maxText)} {
		got := clip(text)
		if len(got) > maxText || !strings.HasSuffix(got, "…") || utf8.ValidString(text) != utf8.ValidString(got) {
			t.Errorf("%.10q was cut to %d bytes that end with %q", text, len(got), got[max(0, len(got)-9):])
		}
	}
}

// TestPoolRetiresTheIdle: isolates that no call needs any more go, but for the
// last one; those in use stay.
func TestPoolRetiresTheIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakes{}
		p := newPool(4, f.fresh)
		closed := func() (n int) {
			synctest.Wait()
			for _, iso := range f.made {
				if iso.closed.Load() {
					n++
				}
			}
			return n
		}
		a, b, c := take(t, p), take(t, p), take(t, p)
		a.give()
		time.Sleep(maxIdle / 2)
		b.give()
		c.give()
		time.Sleep(maxIdle/2 - 1)
		if n := closed(); n != 0 {
			t.Errorf("%d isolates went too soon", n)
		}
		time.Sleep(time.Nanosecond)
		if n := closed(); n != 1 || !a.closed.Load() {
			t.Errorf("%d isolates went, want the first", n)
		}
		for range 10 { // busy with one at a time
			take(t, p).give()
			time.Sleep(maxIdle / 2)
		}
		if n := closed(); n != 2 || c.closed.Load() {
			t.Errorf("%d isolates went, want all but the last", n)
		}
		time.Sleep(10 * maxIdle)
		if got := take(t, p); got != c {
			t.Errorf("took isolate %d, want the one that is left", got.number)
		}
		c.give()
		if err := p.close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestPoolClosesWhileItRetires: an end waits for isolates that are on their way.
func TestPoolClosesWhileItRetires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakes{}
		p := newPool(3, f.fresh)
		a, b := take(t, p), take(t, p)
		a.give()
		b.give()
		time.Sleep(maxIdle)
		if err := p.close(t.Context()); err != nil {
			t.Error(err)
		}
		if !a.closed.Load() || !b.closed.Load() {
			t.Errorf("closed: %t and %t", a.closed.Load(), b.closed.Load())
		}
	})
}
