package workload

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/guest"
)

const (
	// window is how many calls of one workload may be running or waiting;
	// what comes beyond is told so at once.
	window = 1024
	// drainSlack is how much longer than one call's timeout a drain may take.
	drainSlack = 2 * time.Second
)

// triggers answers the messages on a workload's trigger subjects. Calls that
// come while the workload changes guests wait for the next one, as long as
// their timeout allows.
type triggers struct {
	w     *workload
	slots chan struct{}
	calls sync.WaitGroup // running or waiting

	mu      sync.Mutex
	guest   Guest         // nil between guests
	own     *nats.Conn    // of this workload alone, or nil
	changed chan struct{} // closed when guest is set or none will be
	subs    []*nats.Subscription
	drained []chan struct{}
	closed  chan struct{} // set by close; closed when everything is answered
	ended   bool          // no new calls
}

func newTriggers(w *workload) *triggers {
	return &triggers{w: w, slots: make(chan struct{}, window), changed: make(chan struct{})}
}

// attach lets calls go to a guest.
func (t *triggers) attach(g Guest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.guest = g
	t.tellLocked()
}

// tellLocked wakes the calls that wait for a guest.
func (t *triggers) tellLocked() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// lose makes calls wait for the next guest if g is the present one.
func (t *triggers) lose(g Guest) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.guest == g {
		t.guest = nil
	}
}

// current returns the guest, waiting for one until ctx ends or none will come.
func (t *triggers) current(ctx context.Context) (Guest, error) {
	for {
		t.mu.Lock()
		g, changed, closed := t.guest, t.changed, t.closed != nil
		t.mu.Unlock()
		if g != nil {
			return g, nil
		}
		if closed {
			return nil, nex.Errorf(nex.Unavailable, "workload %s is being stopped", t.w.spec.Name)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nex.Errorf(nex.Unavailable, "workload %s is being started again", t.w.spec.Name)
		}
	}
}

// subscribe starts listening, once; it returns when the server knows. After an
// error nobody listens. Messages that come before the first guest is attached wait for it.
func (t *triggers) subscribe(ctx context.Context) (err error) {
	if len(t.w.spec.Triggers) == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed != nil || len(t.subs) > 0 {
		return nil
	}
	nc, err := t.connect()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			t.forgetLocked()
		}
	}()
	queue, before := t.queue(), nc.LastError()
	for _, subject := range t.w.spec.Triggers {
		sub, err := nc.QueueSubscribe(subject, queue, func(m *nats.Msg) { t.take(nc, subject, m) })
		if err != nil {
			return nex.Errorf(nex.Invalid, "subscribe to trigger subject %q: %v", subject, err)
		}
		drained := make(chan struct{})
		sub.SetClosedHandler(func(string) { close(drained) })
		t.subs, t.drained = append(t.subs, sub), append(t.drained, drained)
	}
	if err := nc.FlushWithContext(ctx); err != nil && nc.IsConnected() {
		return fmt.Errorf("subscribe to trigger subjects: %w", err)
	}
	if last := nc.LastError(); last != before { // what was there before is about others, or an earlier attempt
		return refusal(last, t.w.spec.Triggers, queue)
	}
	return nil
}

// forgetLocked gives up subscriptions, so that they are made again.
func (t *triggers) forgetLocked() {
	for _, sub := range t.subs {
		_ = sub.Unsubscribe() // fails only when the server has ended it, or the connection is closed
	}
	t.subs, t.drained = nil, nil
}

// queue is the group whose members share the messages: the copies of a
// workload, or with broadcast this copy alone.
func (t *triggers) queue() string {
	group := "nex." + t.w.spec.Namespace + "." + t.w.spec.Name
	if t.w.spec.Settings.Broadcasts() {
		group += "." + t.w.id
	}
	return group
}

// refusal reports whether the server's last word forbids one of our
// subscriptions. It comes before the flush returns, but the client library
// keeps it only as the connection's last error.
func refusal(last error, triggers []string, queue string) error {
	if !errors.Is(last, nats.ErrPermissionViolation) {
		return nil
	}
	for _, subject := range triggers {
		if strings.Contains(last.Error(), fmt.Sprintf("%q using queue %q", subject, queue)) {
			return nex.Errorf(nex.Denied, "the NATS server does not let this node subscribe to trigger subject %q", subject)
		}
	}
	return nil
}

// close stops listening, lets what was accepted be answered, and returns when
// it is or ctx ends. Later callers wait for the first.
func (t *triggers) close(ctx context.Context) {
	t.mu.Lock()
	closed, first := t.closed, t.closed == nil
	if first {
		closed = make(chan struct{})
		t.closed = closed
		t.tellLocked()
	}
	subs, drained := t.subs, t.drained
	t.mu.Unlock()
	if first {
		t.drainAll(ctx, subs, drained)
		close(closed)
		return
	}
	select {
	case <-closed:
	case <-ctx.Done():
	}
}

func (t *triggers) drainAll(ctx context.Context, subs []*nats.Subscription, drained []chan struct{}) {
	nc := t.conn()
	for _, sub := range subs {
		if nc.IsConnected() {
			_ = sub.Drain() // fails only when the connection is closed
		} else {
			_ = sub.Unsubscribe() // likewise; draining would wait for the server
		}
	}
	for i := range drained {
		select {
		case <-drained[i]:
		case <-ctx.Done():
			_ = subs[i].Unsubscribe() // likewise
		}
	}
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	finished := make(chan struct{})
	go func() { t.calls.Wait(); close(finished) }()
	select {
	case <-finished: // calls end soon in any case: each has its deadline
	case <-ctx.Done():
	}
	if err := t.disconnect(); err != nil {
		t.w.log.Warn("Trigger connection did not end in order", "error", err)
	}
}

// take begins a call for a message, or refuses it at once.
func (t *triggers) take(nc *nats.Conn, pattern string, m *nats.Msg) {
	c := &call{t: t, conn: nc, pattern: pattern, m: m, deadline: time.Now().Add(t.w.spec.Settings.FunctionTimeout())}
	select {
	case t.slots <- struct{}{}:
	default:
		c.answer(guest.Result{}, nex.Errorf(nex.Overloaded, "%d calls of %s are waiting, try again later", window, t.w.spec.Name))
		return
	}
	if !t.begin() { // it missed the drain
		<-t.slots
		c.answer(guest.Result{}, nex.Errorf(nex.Unavailable, "workload %s is being stopped", t.w.spec.Name))
		return
	}
	t.mu.Lock()
	g := t.guest
	t.mu.Unlock()
	if g == nil {
		go c.await()
		return
	}
	c.invoke(g)
}

// begin counts a call unless none may begin any more.
func (t *triggers) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.calls.Add(1)
	}
	return !t.ended
}
