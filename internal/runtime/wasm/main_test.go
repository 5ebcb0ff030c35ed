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
	"nex/internal/nextest/leaks"
	"nex/internal/runtime"
)

// guest is the program in testdata/guest, built once.
var guest struct {
	code  []byte
	cache string // compiled code, shared by the tests
}

func TestMain(m *testing.M) {
	if cache, file, ok := strings.Cut(os.Getenv(compileVariable), string(os.PathListSeparator)); ok {
		if err := compile(cache, file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(leaks.Run(ready{m}))
}

// compileVariable names the environment variable that makes a test binary
// compile a module's file into a cache directory: both, as in PATH. See
// precompile.
const compileVariable = "NEX_TEST_WASM_COMPILE"

// precompile has a module's compiled code in the tests' cache. The binary that
// makes it has no race detector, with which compiling takes twenty times as long.
func precompile(file string) error {
	compile := exec.Command("go", "test", "-count=1", ".")
	compile.Env = append(os.Environ(), compileVariable+"="+guest.cache+string(os.PathListSeparator)+file)
	if out, err := compile.CombinedOutput(); err != nil {
		return fmt.Errorf("compile %s: %w\n%s", file, err, out)
	}
	return nil
}

// compile is what precompile has done.
func compile(cache, file string) error {
	code, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	f, err := Load(context.Background(), Options{Code: code, CacheDir: cache, Log: func(slog.Level, string) {}})
	if err != nil {
		return err
	}
	return f.Close(context.Background())
}

// ready are tests that have the guest.
type ready struct{ *testing.M }

func (r ready) Run() int {
	dir, err := os.MkdirTemp("", "wasm-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "guest.wasm")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", file, "./testdata/guest")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build guest: %v\n%s", err, out)
		return 1
	}
	if guest.code, err = os.ReadFile(file); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	guest.cache = filepath.Join(dir, "cache")
	if err := precompile(file); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return r.M.Run()
}

// Behaving returns options for the guest program.
func Behaving(behaviour string) Options {
	return Options{
		Name:     "guest.wasm",
		Code:     guest.code,
		Env:      map[string]string{"BEHAVIOUR": behaviour},
		CacheDir: guest.cache,
		Log:      func(slog.Level, string) {},
	}
}

// echoFunction is the compiled Rust example: it replies with the payload
// followed by the subject, and starts twenty times faster than a Go module.
const echoFunction = "../../../examples/wasm/echofunction/echofunction.wasm"

// RustEcho returns options for the Rust example.
func RustEcho(t testing.TB) Options {
	t.Helper()
	return example(t, echoFunction)
}

// RustReactor returns options for the Rust example of a reactor.
func RustReactor(t testing.TB) Options {
	t.Helper()
	return example(t, "../../../examples/wasm/reactor/reactor.wasm")
}

func example(t testing.TB, path string) Options {
	t.Helper()
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return Options{Name: filepath.Base(path), Code: code, CacheDir: guest.cache, Log: func(slog.Level, string) {}}
}

// mustLoad loads a function and closes it when the test is over.
func mustLoad(t testing.TB, o Options) *Function {
	t.Helper()
	f, err := Load(t.Context(), o)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := f.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return f
}

// invoke calls f with a generous deadline.
func invoke(t testing.TB, f *Function, payload string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := f.Invoke(ctx, runtime.Trigger{Subject: "test.subject", Payload: []byte(payload)})
	return string(got.Payload), err
}

// wantError checks the code and the exact text of an error.
func wantError(t *testing.T, err error, code nex.Code, text string) {
	t.Helper()
	if err == nil || nex.CodeOf(err) != code || err.Error() != text {
		t.Errorf("error %q with code %q, want %q with %q", err, nex.CodeOf(err), text, code)
	}
}

// recorder keeps log records.
type recorder struct {
	mu      sync.Mutex
	records []string // guarded by mu
}

func (r *recorder) log(level slog.Level, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, level.String()+" "+text)
}

func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.records
}
