package guest_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest/liar"
)

// TestLiars: whatever an agent says instead of the truth ends its link, and the call
// that it was about is answered once, with a code.
func TestLiars(t *testing.T) {
	for _, lie := range liar.Lies() {
		for _, called := range []bool{true, false} {
			name := lie.Name
			if !called {
				name += ", uncalled"
			}
			if !lie.Early && (called || !lie.Mute) { // only pings, of which there are none here, find those that are uncalled
				t.Run(name, func(t *testing.T) { t.Parallel(); lieTo(t, lie, called) })
			}
		}
	}
}

func lieTo(t *testing.T, lie liar.Lie, called bool) {
	near, far := sockets(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = liar.Tell(ctx, "", far) }() // how it ends is its own affair
	defer func() { cancel(); await(t, ended, "the liar's end") }()
	c, err := guest.Greet(t.Context(), near)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sink := guest.Sink{
		Log: func(slog.Level, string) {},
		Host: func(context.Context, guest.HostCall) (guest.Message, error) {
			return guest.Message{}, nex.Errorf(nex.Invalid, "no")
		},
	}
	if err := c.Deploy(t.Context(), guest.Deploy{ID: "w"}, bytes.NewReader(liar.Artifact(lie.Name)), sink); err != nil {
		t.Fatal(err)
	}
	if called {
		answers := make(chan error, 2)
		c.Invoke(guest.Trigger{ID: "w", Timeout: time.Second}, time.Now().Add(time.Second), true, func(_ guest.Result, err error) { answers <- err })
		if err := receive(t, answers); err == nil {
			t.Error("the call has an answer")
		} else if code := nex.CodeOf(err); code == nex.Internal && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the call failed without a code: %v", err)
		}
		defer func() {
			if len(answers) > 0 {
				t.Errorf("and again: %v", <-answers)
			}
		}()
	}
	await(t, c.Done(), "the end of the link")
	t.Log(c.Err())
}
