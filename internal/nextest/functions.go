// Package nextest is test support: contract suites that every implementation
// of an interface must pass, and the parts that tests of several packages
// need. Nothing outside of tests imports it.
package nextest

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nex"
	"nex/internal/runtime"
)

// The bounds are generous: they tell a hang from an answer, not slow from
// fast.
const (
	callTimeout = time.Minute            // for a call that should answer
	loopTimeout = 300 * time.Millisecond // for a call that never answers by itself
	stopSlack   = 30 * time.Second       // from a deadline to the return of the call
)

// Functions checks that a function runtime keeps the promises of
// [runtime.Function]. load returns a ready function that behaves as told and
// logs to log; the suite closes it. The behaviours are
//
//	echo     replies with the payload
//	subject  replies with the payload followed by the subject
//	empty    replies with nothing
//	throw    fails with the text boom
//	loop     never ends
//	big      replies with 1,000 times 0123456789, in as many writes if it can
//	log      prints the line "hello log" and replies with nothing
//	hog      allocates memory without end
func Functions(t *testing.T, load func(t *testing.T, behaviour string, log runtime.Log) runtime.Function) {
	s := functions{load: load}
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"Echo", s.echo},
		{"Subject", s.subject},
		{"Empty", s.empty},
		{"Big", s.big},
		{"Throw", s.throw},
		{"Loop", s.loop},
		{"Cancel", s.cancel},
		{"Log", s.log},
		{"Hog", s.hog},
		{"Concurrent", s.concurrent},
		{"CloseWaits", s.closeWaits},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			c.test(t)
		})
	}
}

type functions struct {
	load func(t *testing.T, behaviour string, log runtime.Log) runtime.Function
}

func (s functions) echo(t *testing.T) {
	f, done := s.open(t, "echo", discard)
	defer done()
	binary := make([]byte, 64<<10)
	_, _ = rand.Read(binary) // never fails
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for name, payload := range map[string][]byte{
		"text": []byte("héllo"), "empty": {}, "nil": nil, "zeros": make([]byte, 10),
		"every byte": every, "64 KiB": binary, "newlines": []byte("\n\r\n\x00\n"),
	} {
		got := call(t, f, runtime.Trigger{Subject: "a.b", Payload: bytes.Clone(payload)})
		if !bytes.Equal(got, payload) {
			t.Errorf("%s: reply of %d bytes differs from the payload of %d", name, len(got), len(payload))
		}
	}
}

func (s functions) subject(t *testing.T) {
	f, done := s.open(t, "subject", discard)
	defer done()
	for _, subject := range []string{"a", "wasm.echo", "héllo.wörld", strings.Repeat("long.", 40) + "x"} {
		got := call(t, f, runtime.Trigger{Subject: subject, Payload: []byte("to:")})
		if want := "to:" + subject; string(got) != want {
			t.Errorf("reply %q, want %q", got, want)
		}
	}
}

func (s functions) empty(t *testing.T) {
	f, done := s.open(t, "empty", discard)
	defer done()
	for range 3 {
		if got := call(t, f, runtime.Trigger{Subject: "a", Payload: []byte("x")}); len(got) > 0 {
			t.Errorf("reply %q, want none", got)
		}
	}
}

func (s functions) big(t *testing.T) {
	f, done := s.open(t, "big", discard)
	defer done()
	want := strings.Repeat("0123456789", 1000)
	if got := call(t, f, runtime.Trigger{Subject: "a"}); string(got) != want {
		t.Errorf("reply of %d bytes, want all %d", len(got), len(want))
	}
}

func (s functions) throw(t *testing.T) {
	f, done := s.open(t, "throw", discard)
	defer done()
	for range 2 { // the second call shows that the first did no harm
		ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
		_, err := f.Invoke(ctx, runtime.Trigger{Subject: "a"})
		cancel()
		wantCode(t, err, nex.Exception)
		if text := err.Error(); !strings.Contains(text, "boom") || strings.Contains(text, "\n") {
			t.Errorf("error %q, want one line with boom", text)
		}
	}
}

// loop shows that a call that never ends is really stopped: with all
// instances in loops one after the other, each call must still get its turn.
func (s functions) loop(t *testing.T) {
	f, done := s.open(t, "loop", discard)
	defer done()
	for range 3 {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), loopTimeout)
		_, err := f.Invoke(ctx, runtime.Trigger{Subject: "a"})
		cancel()
		wantCode(t, err, nex.Timeout)
		if took := time.Since(began); took > loopTimeout+stopSlack {
			t.Errorf("stopped after %s", took)
		}
	}
}

// cancel shows that a call ends with its context even without a deadline.
func (s functions) cancel(t *testing.T) {
	f, done := s.open(t, "loop", discard)
	defer done()
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(loopTimeout, cancel).Stop()
	_, err := f.Invoke(ctx, runtime.Trigger{Subject: "a"})
	wantCode(t, err, nex.Timeout)
}

func (s functions) log(t *testing.T) {
	var got recorder
	f, done := s.open(t, "log", got.log)
	defer done()
	call(t, f, runtime.Trigger{Subject: "a"})
	if text := got.String(); !strings.Contains(text, "hello log") || strings.Contains(text, "\n\n") {
		t.Errorf("log holds %q, want the record hello log", text)
	}
}

// hog may end in any of three ways, but it ends, and the next call works as
// the first did.
func (s functions) hog(t *testing.T) {
	f, done := s.open(t, "hog", discard)
	defer done()
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
		_, err := f.Invoke(ctx, runtime.Trigger{Subject: "a"})
		cancel()
		wantCode(t, err, nex.OutOfMemory, nex.Exception, nex.Timeout)
	}
}

func (s functions) concurrent(t *testing.T) {
	f, done := s.open(t, "subject", discard)
	defer done()
	ctx, cancel := context.WithTimeout(t.Context(), 5*callTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			want := fmt.Sprintf("%d of subject.%d", i, i)
			got, err := f.Invoke(ctx, runtime.Trigger{
				Subject: fmt.Sprintf("subject.%d", i),
				Payload: fmt.Appendf(nil, "%d of ", i),
			})
			if err != nil || string(got.Payload) != want {
				t.Errorf("reply %q (%v), want %q", got.Payload, err, want)
			}
		})
	}
	wg.Wait()
}

// closeWaits shows that Close waits for a running call: one that is held up in
// its log.
func (s functions) closeWaits(t *testing.T) {
	var once sync.Once
	var released atomic.Bool
	running, release := make(chan struct{}), make(chan struct{})
	f, done := s.open(t, "log", func(slog.Level, string) {
		once.Do(func() { close(running) })
		<-release
	})
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), callTimeout)
		defer cancel()
		_, err := f.Invoke(ctx, runtime.Trigger{Subject: "a"})
		ended <- err
	}()
	select {
	case <-running:
	case <-time.After(callTimeout):
		t.Error("the call does not log")
	}
	time.AfterFunc(50*time.Millisecond, func() {
		released.Store(true)
		close(release)
	})
	done()
	if !released.Load() {
		t.Error("Close did not wait for the call")
	}
	if err := <-ended; err != nil {
		t.Errorf("the call that Close waited for: %v", err)
	}
}

// open loads a function and returns the deed that closes it.
func (s functions) open(t *testing.T, behaviour string, log runtime.Log) (runtime.Function, func()) {
	t.Helper()
	f := s.load(t, behaviour, log)
	return f, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), callTimeout)
		defer cancel()
		if err := f.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

// call invokes f and expects a reply.
func call(t *testing.T, f runtime.Function, trigger runtime.Trigger) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	reply, err := f.Invoke(ctx, trigger)
	if err != nil {
		t.Fatalf("invoke: %v", err)
	}
	return reply.Payload
}

func wantCode(t *testing.T, err error, codes ...nex.Code) {
	t.Helper()
	got := nex.CodeOf(err)
	for _, code := range codes {
		if got == code {
			return
		}
	}
	t.Fatalf("error %q (%v), want one of %q", got, err, codes)
}

func discard(slog.Level, string) {}

// recorder keeps log records, one a line.
type recorder struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (r *recorder) log(_ slog.Level, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.WriteString(text + "\n")
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}
