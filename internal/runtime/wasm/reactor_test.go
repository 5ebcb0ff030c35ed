package wasm

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nex"
	"nex/internal/runtime"
)

// goReactor builds the Go example.
func goReactor(t *testing.T) Options {
	t.Helper()
	file := filepath.Join(t.TempDir(), "reactor.wasm")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, "../../../examples/wasm/goreactor")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the reactor: %v\n%s", err, out)
	}
	return example(t, file)
}

// TestReactors calls the examples, which count their calls.
func TestReactors(t *testing.T) {
	for name, o := range map[string]Options{"rust": RustReactor(t), "go": goReactor(t)} {
		t.Run(name, func(t *testing.T) {
			var log recorder
			o.MaxConcurrency, o.Log = 1, log.log
			f := mustLoad(t, o)
			for n, payload := range []string{"hello ", "", strings.Repeat("x", 1<<20), "\x00\xff"} {
				got, err := invoke(t, f, payload)
				if want := payload + "test.subject" + fmt.Sprint(n+1); got != want || err != nil {
					t.Errorf("reply of %d bytes, %v; want %d", len(got), err, len(want))
				}
			}
			_, err := invoke(t, f, "fail")
			wantError(t, err, nex.Exception, "asked to fail")
			if got := log.all(); len(got) != 1 || got[0] != "ERROR asked to fail" {
				t.Errorf("log holds %q", got)
			}
			if got, err := invoke(t, f, ""); got != "test.subject6" || err != nil {
				t.Errorf("after an error: %q, %v", got, err)
			}
		})
	}
}

// TestReactorInParallel shows that instances do not share their memory.
func TestReactorInParallel(t *testing.T) {
	f := mustLoad(t, RustReactor(t))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for n := range 500 {
		wg.Go(func() {
			subject, payload := fmt.Sprintf("subject.%d.", n), fmt.Sprintf("payload %d ", n)
			got, err := f.Invoke(ctx, runtime.Trigger{Subject: subject, Payload: []byte(payload)})
			if err != nil || !strings.HasPrefix(string(got.Payload), payload+subject) {
				t.Errorf("reply %q, %v", got.Payload, err)
			}
		})
	}
	wg.Wait()
}

// reactor assembles one by hand: nex_alloc returns at, the bodies are those of
// nex_invoke and _initialize.
func reactor(at int32, invoke, initialize []byte) []byte {
	body := func(b []byte) []byte { return append(append([]byte{byte(len(b) + 2), 0}, b...), 0x0b) }
	code := append([]byte{3}, body(number(at))...)
	code = append(append(code, body(invoke)...), body(initialize)...)
	return tiny(
		section(typeSection, 3, 0x60, 1, 0x7f, 1, 0x7f, 0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7e, 0x60, 0, 0),
		section(functionSection, 3, 0, 1, 2), memorySized(1),
		section(exportSection, []byte("\x04\x09nex_alloc\x00\x00\x0anex_invoke\x00\x01\x0b_initialize\x00\x02\x06memory\x02\x00")...),
		section(codeSection, code...))
}

func TestReactorsThatBreakTheContract(t *testing.T) {
	reply := []byte{0x42, 0}
	for _, c := range []struct {
		name string
		code []byte
		want string
	}{
		{"no place", reactor(0, reply, nil), "nex_alloc found no place for 12 bytes"},
		{"place outside", reactor(0xfff8, reply, nil), "nex_alloc returned a place outside of memory"},
		{"negative place", reactor(-1, reply, nil), "nex_alloc returned a place outside of memory"},
		{"reply outside", reactor(8, []byte{0x42, 0x80, 0x80, 0x04, 0x42, 32, 0x86, 0x42, 1, 0x84}, nil), "nex_invoke returned a reply outside of memory"},
		{"reply too large", reactor(8, []byte{0x42, 0xff, 0xff, 0xff, 0xff, 0x07}, nil), "the reply is larger than 64 MiB"},
		{"trap", reactor(8, []byte{0x00}, nil), "unreachable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := mustLoad(t, Options{Code: c.code, MaxConcurrency: 1, Log: func(slog.Level, string) {}})
			for range 2 {
				_, err := invoke(t, f, "")
				if err == nil || err.Error() != c.want {
					t.Errorf("error %v, want %s", err, c.want)
				}
			}
		})
	}
}

func TestReactorIsStopped(t *testing.T) {
	f := mustLoad(t, Options{Code: reactor(8, append([]byte{0x03, 0x40, 0x0c, 0, 0x0b}, 0x42, 0), nil), Log: func(slog.Level, string) {}})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := f.Invoke(ctx, runtime.Trigger{Subject: "a"}); nex.CodeOf(err) != nex.Timeout {
		t.Errorf("error %v, want a timeout", err)
	}
}

func TestReactorsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		code []byte
		want string
	}{
		"initialize traps": {reactor(8, []byte{0x42, 0}, []byte{0x00}), "x.wasm cannot start: unreachable"},
		"another type": {tiny(section(typeSection, 1, 0x60, 0, 0), section(functionSection, 1, 0), memorySized(1),
			section(exportSection, []byte("\x01\x0anex_invoke\x00\x00")...), coded()),
			"x.wasm is not a reactor for Nex: it must export the function nex_invoke (i32, i32, i32, i32) -> i64"},
		"reserved name": {tiny(section(typeSection, 1, 0x60, 0, 0), section(functionSection, 1, 0),
			section(exportSection, []byte("\x01\x08nex:stop\x00\x00")...), coded()),
			`x.wasm exports a name that begins with "nex:": these are reserved`},
	} {
		_, err := Load(t.Context(), Options{Name: "x.wasm", Code: c.code, Log: func(slog.Level, string) {}})
		if t.Run(name, func(t *testing.T) { wantError(t, err, nex.Invalid, c.want) }); err == nil {
			t.Fatal("loaded")
		}
	}
}
