package guest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
)

// hosted joins peers where workload w1 has host services.
func hosted(t *testing.T, host func(context.Context, guest.HostCall) (guest.Message, error)) peers {
	t.Helper()
	p := connectSockets(t, &agent{invoke: echo})
	for id, sink := range map[string]guest.Sink{"w1": {Host: host}, "w2": {}} {
		if err := p.Deploy(t.Context(), guest.Deploy{ID: id}, strings.NewReader("x"), sink); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func ask(method string, payload []byte) guest.HostCall {
	return guest.HostCall{ID: "w1", Timeout: nextest.Patience, Service: "kv", Method: method, Message: guest.Message{Payload: payload}}
}

func TestHostCallsCarryEveryField(t *testing.T) {
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	p := hosted(t, func(ctx context.Context, c guest.HostCall) (guest.Message, error) {
		if due, ok := ctx.Deadline(); !ok || time.Until(due) > nextest.Patience {
			t.Errorf("deadline %v, %v", due, ok)
		}
		if c.Service != "kv" || c.Method != "get" || c.Args["key"] != "a\x00b" || len(c.Header["H"]) != 2 {
			t.Errorf("%+v", c)
		}
		return guest.Message{Args: map[string]string{"n": "1"}, Header: c.Header, Payload: c.Payload}, nil
	})
	c := ask("get", large)
	c.Args, c.Header = map[string]string{"key": "a\x00b"}, map[string][]string{"H": {"1", "2"}}
	m, err := p.server.Host(t.Context(), c)
	if err != nil || m.Args["n"] != "1" || len(m.Header["H"]) != 2 || !bytes.Equal(m.Payload, large) {
		t.Errorf("%v, %d bytes, %v %v", err, len(m.Payload), m.Args, m.Header)
	}
}

func TestHostFailuresKeepTheirCode(t *testing.T) {
	p := hosted(t, func(_ context.Context, c guest.HostCall) (guest.Message, error) {
		if c.Method == "large" {
			return guest.Message{Payload: make([]byte, guest.MaxMessage)}, nil
		}
		return guest.Message{}, nex.Errorf(nex.NotFound, "no key")
	})
	stranger, mute := ask("get", nil), ask("get", nil)
	stranger.ID, mute.ID = "w3", "w2"
	many := ask("get", nil)
	many.Args = map[string]string{}
	for i := range 20 {
		many.Args[fmt.Sprint(i)] = ""
	}
	for name, c := range map[string]struct {
		call guest.HostCall
		code nex.Code
	}{
		"its own":         {ask("get", nil), nex.NotFound},
		"large answer":    {ask("large", nil), nex.TooLarge},
		"large question":  {ask("get", make([]byte, guest.MaxMessage)), nex.TooLarge},
		"unknown id":      {stranger, nex.Unsupported},
		"no services":     {mute, nex.Unsupported},
		"many arguments":  {many, nex.Invalid},
		"still all right": {ask("get", nil), nex.NotFound},
	} {
		if _, err := p.server.Host(t.Context(), c.call); nex.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Nobody waits for a host call that is slow but who made it.
func TestSlowHostCalls(t *testing.T) {
	var cancelled sync.WaitGroup
	p := hosted(t, func(ctx context.Context, c guest.HostCall) (guest.Message, error) {
		if c.Method == "slow" {
			defer cancelled.Done()
			<-ctx.Done()
			return guest.Message{}, ctx.Err()
		}
		return guest.Message{}, nil
	})
	const many = 200
	cancelled.Add(many)
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range many {
		waiting.Go(func() {
			if _, err := p.server.Host(ctx, ask("slow", nil)); err == nil {
				t.Error("answered")
			}
		})
	}
	for range 100 {
		if _, err := p.server.Host(t.Context(), ask("get", nil)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Invoke(t.Context(), guest.Trigger{ID: "w1", Timeout: time.Minute}); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	waiting.Wait()
	cancelled.Wait() // the node's end heard of it

	cancelled.Add(1)
	late := ask("slow", nil)
	late.Timeout = time.Millisecond
	if _, err := p.server.Host(t.Context(), late); nex.CodeOf(err) != nex.Timeout {
		t.Errorf("late: %v", err)
	}
	cancelled.Wait()
}

// An agent cannot fill the node's memory with what it asks.
func TestHostCallsOfTooManyHeaders(t *testing.T) {
	p := hosted(t, func(_ context.Context, c guest.HostCall) (guest.Message, error) { return guest.Message{}, nil })
	c := ask("get", nil)
	c.Header = map[string][]string{"A": make([]string, 1000)}
	if _, err := p.server.Host(t.Context(), c); err != nil {
		t.Errorf("as many as may be: %v", err)
	}
	c.Header["B"] = []string{"one more"}
	if _, err := p.server.Host(t.Context(), c); nex.CodeOf(err) != nex.Invalid {
		t.Errorf("one more: %v", err)
	}
}

func TestHostCallsOfTooManyBytes(t *testing.T) {
	release := make(chan struct{})
	p := hosted(t, func(ctx context.Context, _ guest.HostCall) (guest.Message, error) {
		select {
		case <-release:
		case <-ctx.Done():
		}
		return guest.Message{}, nil
	})
	codes := make(chan nex.Code, 5)
	for range cap(codes) {
		go func() {
			_, err := p.server.Host(context.Background(), ask("put", make([]byte, guest.MaxMessage/2)))
			codes <- nex.CodeOf(err)
		}()
	}
	got := map[nex.Code]int{}
	for i := range cap(codes) {
		if got[<-codes]++; i == 0 { // one was refused at once
			close(release)
		}
	}
	if want := map[nex.Code]int{"": 4, nex.Overloaded: 1}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if _, err := p.server.Host(t.Context(), ask("get", nil)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Code that the reader works on asks without losing its turn, and calls that
// come meanwhile are worked on by others.
func TestHostCallsInTurn(t *testing.T) {
	var server atomic.Pointer[guest.Server]
	a := &agent{invoke: func(ctx context.Context, tr guest.Trigger) (guest.Result, error) {
		if tr.Subject == "echo" {
			return guest.Result{Payload: tr.Payload}, nil
		}
		c := ask(tr.Subject, tr.Payload)
		m, err := server.Load().Host(ctx, c)
		if err == nil {
			m, err = server.Load().Host(ctx, c)
		}
		return guest.Result{Payload: m.Payload}, err
	}}
	p := connectSockets(t, a)
	server.Store(p.server)
	asked, release := make(chan struct{}, 1), make(chan struct{})
	host := func(ctx context.Context, c guest.HostCall) (guest.Message, error) {
		open := release
		switch c.Method {
		case "never":
			open = nil
			fallthrough
		case "slow":
			asked <- struct{}{}
			select {
			case <-open:
			case <-ctx.Done():
				return guest.Message{}, ctx.Err()
			}
		}
		return guest.Message{Payload: c.Payload}, nil
	}
	if err := p.Deploy(t.Context(), guest.Deploy{ID: "w1"}, strings.NewReader("x"), guest.Sink{Host: host}); err != nil {
		t.Fatal(err)
	}
	invoke := func(ctx context.Context, subject, payload string) error {
		r, err := p.Invoke(ctx, guest.Trigger{ID: "w1", Subject: subject, Payload: []byte(payload), Timeout: time.Minute})
		if err == nil && string(r.Payload) != payload {
			err = fmt.Errorf("%d bytes came back", len(r.Payload))
		}
		return err
	}
	for i := range 100 {
		if err := invoke(t.Context(), "get", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := invoke(t.Context(), "get", strings.Repeat("x", 3<<20)); err != nil {
		t.Fatal(err)
	}

	first := make(chan error, 1)
	go func() { first <- invoke(context.Background(), "slow", "x") }()
	nextest.Await(t, asked, "the slow host call")
	var others sync.WaitGroup
	for i := range 200 {
		others.Go(func() {
			subject := "echo"
			if i%2 == 0 {
				subject = "get"
			}
			if err := invoke(t.Context(), subject, fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		})
	}
	others.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	go func() { <-asked }()
	if err := invoke(ctx, "slow", "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("slow: %v", err)
	}
	go func() { <-asked }()
	close(release)
	if err := nextest.Await(t, first, "the first call"); err != nil {
		t.Error(err)
	}
	if err := invoke(t.Context(), "get", "again"); err != nil {
		t.Error(err)
	}

	// The link's end is the end of a call that waits.
	waits := make(chan error, 1)
	go func() { waits <- invoke(context.Background(), "never", "x") }()
	nextest.Await(t, asked, "another slow host call")
	p.hangUp()
	if err := nextest.Await(t, waits, "the end of the call"); err == nil {
		t.Error("answered by nobody")
	}
}
