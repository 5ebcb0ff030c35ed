package js_test

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"nex"
	"nex/internal/nextest/leaks"
	"nex/internal/runtime"
	"nex/internal/runtime/js"
	"nex/internal/runtime/js/quickjs"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// callTime bounds calls that are expected to end by themselves. It is long,
// because the machine may be busy.
const callTime = time.Minute

// makers make the engines that must pass the tests of this package. Built with
// the tag v8, they also make that one.
var makers = map[string]func() (js.Engine, error){
	"quickjs": func() (js.Engine, error) { return quickjs.New() },
}

// engines returns each engine that must pass the tests of this package.
func engines(tb testing.TB) map[string]js.Engine {
	tb.Helper()
	all := map[string]js.Engine{}
	for name, make := range makers {
		e, err := make()
		if err != nil {
			tb.Fatal(err)
		}
		all[name] = e
	}
	return all
}

// each runs test over every engine.
func each(t *testing.T, test func(*testing.T, js.Engine)) {
	t.Helper()
	for name, e := range engines(t) {
		t.Run(name, func(t *testing.T) { test(t, e) })
	}
}

// record is one log record of user code.
type record struct {
	level slog.Level
	text  string
}

// recorder keeps log records.
type recorder struct {
	mu      sync.Mutex
	records []record // guarded by mu
}

func (r *recorder) log(level slog.Level, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, record{level, text})
}

// take returns the records kept so far, and forgets them.
func (r *recorder) take() []record {
	r.mu.Lock()
	defer r.mu.Unlock()
	records := r.records
	r.records = nil
	return records
}

// fixture is a loaded function and what it logged.
type fixture struct {
	*js.Function
	*recorder
}

// load loads code as echo.js, with what set changes in the options.
func load(tb testing.TB, e js.Engine, code string, set ...func(*js.Options)) fixture {
	tb.Helper()
	f, err := tryLoad(tb, e, code, set...)
	if err != nil {
		tb.Fatalf("load %s: %v", code, err)
	}
	return f
}

func tryLoad(tb testing.TB, e js.Engine, code string, set ...func(*js.Options)) (fixture, error) {
	tb.Helper()
	r := &recorder{}
	o := js.Options{Name: "echo.js", Code: []byte(code), Log: r.log}
	for _, f := range set {
		f(&o)
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	f, err := js.Load(ctx, e, o)
	if err != nil {
		return fixture{}, err
	}
	tb.Cleanup(func() {
		if err := f.Close(context.Background()); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	return fixture{f, r}, nil
}

// call invokes f with subject and payload.
func (f fixture) call(subject, payload string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	reply, err := f.Invoke(ctx, runtime.Trigger{Subject: subject, Payload: []byte(payload)})
	return string(reply.Payload), err
}

// wantReply calls f and wants that reply.
func (f fixture) wantReply(t *testing.T, subject, payload, want string) {
	t.Helper()
	if got, err := f.call(subject, payload); err != nil || got != want {
		t.Errorf("reply %.200q, %v; want %.200q", got, err, want)
	}
}

func wantCode(t *testing.T, err error, want nex.Code) {
	t.Helper()
	if got := nex.CodeOf(err); got != want {
		t.Errorf("error %v of code %q, want code %q", err, got, want)
	}
}
