package guest_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
)

// deaf joins peers where the host services of workload w1 look at no context:
// they answer when they are released. Functions ask them, for as long as their
// payload says, and tell when they are back.
func deaf(t *testing.T) (p peers, asked <-chan struct{}, back <-chan error, release func()) {
	t.Helper()
	answer, came, done := make(chan struct{}), make(chan struct{}, 10), make(chan error, 10)
	var server atomic.Pointer[guest.Server]
	p = connectSockets(t, &agent{invoke: func(ctx context.Context, tr guest.Trigger) (guest.Result, error) {
		c := ask("get", nil)
		if d, err := time.ParseDuration(string(tr.Payload)); err == nil {
			c.Timeout = d
		}
		_, err := server.Load().Host(ctx, c)
		done <- err
		return guest.Result{}, err
	}})
	server.Store(p.server)
	host := func(context.Context, guest.HostCall) (guest.Message, error) {
		came <- struct{}{}
		<-answer
		return guest.Message{}, nil
	}
	if err := p.Deploy(t.Context(), guest.Deploy{ID: "w1"}, strings.NewReader("x"), guest.Sink{Host: host}); err != nil {
		t.Fatal(err)
	}
	return p, came, done, func() { close(answer) }
}

// A node that takes long to end what was given up, as when it has to clean up
// with a NATS that does not answer, is not the end of the agent.
func TestHostCallsThatEndLate(t *testing.T) {
	p, asked, _, release := deaf(t)
	late := ask("get", nil)
	late.Timeout = time.Millisecond
	if _, err := p.server.Host(t.Context(), late); nex.CodeOf(err) != nex.Timeout {
		t.Errorf("late: %v", err)
	}
	nextest.Await(t, asked, "the host call")
	select {
	case <-p.Done():
		t.Errorf("the link ended: %v", p.Err())
	case <-time.After(3 * time.Second): // it counted as hung after 2
	}
	release()
	if _, err := p.server.Host(t.Context(), ask("get", nil)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Code that the reader works on gets its goroutine back when the time of its
// host call is over, though nothing comes on the link.
func TestHostCallsInTurnEndInTime(t *testing.T) {
	p, _, back, release := deaf(t)
	defer release()
	go p.Client.Invoke(guest.Trigger{ID: "w1", Payload: []byte("20ms"), Timeout: time.Minute}, time.Now().Add(time.Minute), true, func(guest.Result, error) {})
	if err := nextest.Await(t, back, "the end of the host call"); nex.CodeOf(err) != nex.Timeout {
		t.Error(err)
	}
}

// Likewise when its call is given up.
func TestHostCallsInTurnAreCancelled(t *testing.T) {
	p, asked, back, release := deaf(t)
	defer release()
	ended := make(chan error, 1)
	p.Client.Invoke(guest.Trigger{ID: "w1", Timeout: time.Minute}, time.Now().Add(50*time.Millisecond), true, func(_ guest.Result, err error) { ended <- err })
	nextest.Await(t, asked, "the host call")
	nextest.Await(t, ended, "the end of the call")
	if err := nextest.Await(t, back, "the end of the host call"); err == nil {
		t.Error("answered by nobody")
	}
	if err := p.Err(); err != nil {
		t.Error(err)
	}
}
