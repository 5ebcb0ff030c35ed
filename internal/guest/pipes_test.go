package guest_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"nex/internal/guest"
	"nex/internal/nextest"
)

// stuck is a pipe whose reads know neither deadlines nor Close, as some of
// Windows do: they end with the other end.
type stuck struct{ *os.File }

// Close does nothing to who reads.
func (stuck) Close() error { return nil }

// pipePair returns the ends of a stream over real pipes.
func pipePair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	farIn, nearOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	nearIn, farOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	near, far = guest.NewPipes(stuck{nearIn}, nearOut), guest.NewPipes(farIn, farOut)
	t.Cleanup(func() { _ = near.Close(); _ = far.Close(); _ = nearIn.Close() })
	return near, far
}

func TestPipesCarryEverything(t *testing.T) {
	near, far := pipePair(t)
	sent := make([]byte, 3<<20+17)
	_, _ = rand.Read(sent) // never fails
	wrote := make(chan error, 1)
	go func() {
		for rest, size := sent, 1; len(rest) > 0; size = size*3 + 1 {
			n := min(size, len(rest))
			if _, err := far.Write(rest[:n]); err != nil {
				wrote <- err
				return
			}
			rest = rest[n:]
		}
		wrote <- far.Close()
	}()
	got, err := io.ReadAll(near)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d came, %v", len(got), len(sent), err)
	}
	if err := nextest.Await(t, wrote, "the writer"); err != nil {
		t.Error(err)
	}
}

// TestPipesHaveDeadlines: a wait for what never comes ends, and the stream goes
// on afterwards.
func TestPipesHaveDeadlines(t *testing.T) {
	near, far := pipePair(t)
	b := make([]byte, 10)
	for _, in := range []time.Duration{20 * time.Millisecond, -time.Second} {
		if err := near.SetReadDeadline(time.Now().Add(in)); err != nil {
			t.Fatal(err)
		}
		if n, err := near.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	for _, due := range []time.Time{time.Now().Add(time.Minute), {}} {
		if err := near.SetReadDeadline(due); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(far, "hi"); err != nil {
			t.Fatal(err)
		}
		if n, err := near.Read(b); err != nil || string(b[:n]) != "hi" {
			t.Errorf("%q, %v", b[:n], err)
		}
	}
}

// TestClosedPipesWakeTheirReader, also where the system does not.
func TestClosedPipesWakeTheirReader(t *testing.T) {
	near, _ := pipePair(t)
	failed := make(chan error, 1)
	go func() {
		_, err := near.Read(make([]byte, 1))
		failed <- err
	}()
	for range 2 {
		if err := near.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := nextest.Await(t, failed, "the reader"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// TestGreetGivesUpOnPipes: where a deadline does not end a wait that has begun, an
// agent that says no hello, or half of one, is given up all the same.
func TestGreetGivesUpOnPipes(t *testing.T) {
	for _, said := range []string{"", "\x00\x00\x00\x20\x01\x00\x00\x00\x00\x00\x00\x00{"} {
		in, agent := io.Pipe()
		_, out := io.Pipe()
		go func() { _, _ = agent.Write([]byte(said)) }() // it ends with the pipe
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		failed := make(chan error, 1)
		go func() {
			_, err := guest.Greet(ctx, guest.NewPipes(in, out))
			failed <- err
		}()
		if err := receive(t, failed); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q: %v", said, err)
		}
		cancel()
	}
}
