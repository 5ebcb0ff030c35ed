package wasm

import (
	"context"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"nex"
	"nex/internal/runtime"
)

func TestFailures(t *testing.T) {
	for _, c := range []struct{ behaviour, want string }{
		{"throw", "exit status 3: boom"},
		{"silent", "exit status 3"},
		{"nonsense", "exit status 98: unknown behaviour nonsense"},
	} {
		f := mustLoad(t, Behaving(c.behaviour))
		_, err := invoke(t, f, "")
		wantError(t, err, nex.Exception, c.want)
	}
}

func TestTraps(t *testing.T) {
	for _, c := range []struct {
		name string
		body []byte
		want string
		log  string
	}{
		{"unreachable", trap, "unreachable", "wasm error: unreachable\nwasm stack trace:\n"},
		{"division", divide, "integer divide by zero", "wasm error: integer divide by zero\nwasm stack trace:\n"},
		{"recursion", recurse, "stack overflow", "stack overflow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log recorder
			f := mustLoad(t, Options{Code: command(nil, c.body...), Log: log.log})
			for range 2 {
				_, err := invoke(t, f, "")
				wantError(t, err, nex.Exception, c.want)
			}
			if got := log.all(); len(got) != 2 || !strings.HasPrefix(got[1], "ERROR "+c.log) {
				t.Errorf("log holds %q, want %q for each call", got, c.log)
			}
		})
	}
}

func TestMemoryLimit(t *testing.T) {
	code := command([][]byte{memorySized(1)}, grow...) // wants 128 MiB more
	f := mustLoad(t, Options{Code: code, Log: func(slog.Level, string) {}})
	_, err := invoke(t, f, "")
	wantError(t, err, nex.OutOfMemory, "out of memory (limit 128 MiB): unreachable")

	f = mustLoad(t, Options{Code: code, MemoryLimit: 129 << 20, Log: func(slog.Level, string) {}})
	if _, err := invoke(t, f, ""); err != nil {
		t.Errorf("growth within the limit: %v", err)
	}

	hog := Behaving("hog")
	hog.MemoryLimit = 16 << 20
	_, err = invoke(t, mustLoad(t, hog), "")
	if nex.CodeOf(err) != nex.OutOfMemory || !strings.HasPrefix(err.Error(), "out of memory (limit 16 MiB): exit status 2: ") {
		t.Errorf("Go program out of memory: %v", err)
	}
}

func TestTablesAreBounded(t *testing.T) {
	for _, table := range [][]byte{
		{1, 0x70, 0, 1},
		{1, 0x70, 1, 1, 0x80, 0x80, 0x80, 0x80, 0x08},
	} {
		f := mustLoad(t, Options{
			Code: command([][]byte{section(tableSection, table...)}, growTable...),
			Log:  func(slog.Level, string) {},
		})
		if _, err := invoke(t, f, ""); err != nil {
			t.Errorf("table % x grew by 16 million entries", table)
		}
	}
}

func TestStandardErrorIsLogged(t *testing.T) {
	var log recorder
	o := Behaving("lines")
	o.Log = log.log
	if got, err := invoke(t, mustLoad(t, o), ""); got != "" || err != nil {
		t.Errorf("reply %q, %v", got, err)
	}
	want := []string{
		"ERROR one", "ERROR two", "ERROR ",
		"ERROR " + strings.Repeat("x", maxLine), "ERROR " + strings.Repeat("x", 70_000-maxLine),
		"ERROR partial",
	}
	if got := log.all(); !reflect.DeepEqual(got, want) {
		t.Errorf("log holds %.200q\nwant %.200q", got, want)
	}
}

func TestHugeReply(t *testing.T) {
	_, err := invoke(t, mustLoad(t, Behaving("huge")), "")
	wantError(t, err, nex.BadReply, "the reply is larger than 64 MiB")
}

func TestWorld(t *testing.T) {
	o := Behaving("world")
	o.Env["Mixed_case"] = "kept as it is"
	f := mustLoad(t, o)
	look := func() map[string]string {
		reply, err := invoke(t, f, "")
		if err != nil {
			t.Fatal(err)
		}
		facts := map[string]string{}
		for line := range strings.Lines(reply) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			facts[key] = value
		}
		return facts
	}
	before := time.Now().Truncate(time.Millisecond)
	one, two := look(), look()
	for key, want := range map[string]string{
		"args":    "nexfunction test.subject",
		"env":     "BEHAVIOUR=world Mixed_case=kept as it is",
		"nofiles": "true",
	} {
		if one[key] != want {
			t.Errorf("%s: %q, want %q", key, one[key], want)
		}
	}
	for _, facts := range []map[string]string{one, two} {
		ms, err := strconv.ParseInt(facts["now"], 10, 64)
		if now := time.UnixMilli(ms); err != nil || now.Before(before) || now.After(time.Now()) {
			t.Errorf("wall clock %s (%v), want a time since %s", now, err, before)
		}
		if slept, err := strconv.Atoi(facts["slept"]); err != nil || slept < 20 {
			t.Errorf("slept %s ms (%v), want 20 or more", facts["slept"], err)
		}
	}
	if one["random"] == two["random"] {
		t.Errorf("random number %s twice", one["random"])
	}
}

func TestDeadline(t *testing.T) {
	for name, o := range map[string]Options{
		"Go loop":   Behaving("loop"),
		"sleep":     Behaving("sleep"),
		"tiny loop": {Code: command(nil, forever...), Log: func(slog.Level, string) {}},
	} {
		f := mustLoad(t, o)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		began := time.Now()
		_, err := f.Invoke(ctx, runtime.Trigger{Subject: "a"})
		cancel()
		if nex.CodeOf(err) != nex.Timeout || !strings.HasPrefix(err.Error(), "the function was stopped after ") {
			t.Errorf("%s: error %v, want a timeout", name, err)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s: stopped after %s", name, took)
		}
	}
}

// loopStarted starts an endless call and returns when it runs.
func loopStarted(t *testing.T, f *Function, log <-chan string) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		_, err := f.Invoke(ctx, runtime.Trigger{Subject: "a"})
		ended <- err
	}()
	select {
	case <-log:
	case err := <-ended:
		t.Fatalf("the loop ended: %v", err)
	}
	return ended
}

func TestOverloadAndForcedClose(t *testing.T) {
	log := make(chan string, 1)
	o := Behaving("logloop")
	o.MaxConcurrency = 1
	o.Log = func(_ slog.Level, text string) { log <- text }
	f := mustLoad(t, o)
	ended := loopStarted(t, f, log)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := f.Invoke(ctx, runtime.Trigger{Subject: "a"})
	wantError(t, err, nex.Overloaded, "all 1 instances of the function are busy")

	if err := f.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	select {
	case err := <-ended:
		wantError(t, err, nex.Unavailable, "the function was closed during the call")
	case <-time.After(30 * time.Second):
		t.Error("the call outlives its function")
	}
}
