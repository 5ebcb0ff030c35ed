package guest_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
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
		"many arguments":  {many, nex.Internal},
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
