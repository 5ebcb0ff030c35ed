//go:build unix

package native

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nex"
	"nex/internal/runtime"
)

// patience tells a hang from slowness.
const patience = 30 * time.Second

// script writes an executable shell script and returns options to run it.
func script(t *testing.T, text string) (Options, *recorder) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "service")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	log := &recorder{seen: make(chan string, 1000)}
	return Options{Path: path, Dir: t.TempDir(), Log: log.log}, log
}

// mustStart starts a service that is stopped at the end of the test.
func mustStart(t *testing.T, o Options) *Process {
	t.Helper()
	p, err := Start(o)
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(func() { stop(t, p) })
	return p
}

func stop(t *testing.T, p *Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func wait(t *testing.T, p *Process) runtime.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	exit, err := p.Wait(ctx)
	if err != nil {
		t.Fatalf("wait: %v", err)
	}
	return exit
}

// recorder keeps log records and announces them.
type recorder struct {
	seen chan string

	mu      sync.Mutex
	records []string // guarded by mu
}

func (r *recorder) log(level slog.Level, text string) {
	r.mu.Lock()
	r.records = append(r.records, level.String()+" "+text)
	r.mu.Unlock()
	r.seen <- text
}

// all returns the records so far, those of one level in order.
func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.records)
}

// await returns when text is logged.
func (r *recorder) await(t *testing.T, text string) {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case got := <-r.seen:
			if got == text {
				return
			}
		case <-late:
			t.Fatalf("%q is not logged; the log is %q", text, r.all())
		}
	}
}

func TestExits(t *testing.T) {
	for _, c := range []struct {
		script string
		want   runtime.Exit
		text   string
	}{
		{"exit 0", runtime.Exit{}, "exit status 0"},
		{"exit 3", runtime.Exit{Code: 3}, "exit status 3"},
		{"kill -9 $$", runtime.Exit{Code: -1, Signal: "killed"}, "signal: killed"},
		{"kill -TERM $$", runtime.Exit{Code: -1, Signal: "terminated"}, "signal: terminated"},
	} {
		t.Run(c.script, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			o, _ := script(t, c.script)
			p := mustStart(t, o)
			got := wait(t, p)
			if got != c.want || got.String() != c.text {
				t.Errorf("exit %+v (%s), want %+v", got, got, c.want)
			}
			if again := wait(t, p); again != got {
				t.Errorf("second wait: %+v", again)
			}
		})
	}
}

func TestOutput(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for _, c := range []struct {
		name, script string
		want         []string
	}{
		{"both", "echo out; echo err >&2", []string{"ERROR err", "INFO out"}},
		{"partial lines", `printf 'a\nb'; printf 'c\nd' >&2`, []string{"ERROR c", "ERROR d", "INFO a", "INFO b"}},
		{"joined writes", `printf a; printf 'b\n'`, []string{"INFO ab"}},
		{"blank lines", `printf 'a\n\n\nb\r\n'`, []string{"INFO ", "INFO ", "INFO a", "INFO b"}},
		{"nothing", "true", nil},
		{"no input", "cat; echo over", []string{"INFO over"}},
		{"1 MiB without newline", `head -c 1048576 /dev/zero | tr '\0' x`, slices.Repeat([]string{"INFO " + long}, 16)},
		{"as long as allowed", `head -c 65536 /dev/zero | tr '\0' x; echo; echo next`, []string{"INFO next", "INFO " + long}},
		{"arguments", `for a; do echo "[$a]"; done`, []string{"INFO [*]", "INFO []", "INFO [a b]"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			o, log := script(t, c.script)
			o.Args = []string{"a b", "", "*"}
			if exit := wait(t, mustStart(t, o)); exit != (runtime.Exit{}) {
				t.Errorf("exit %v", exit)
			}
			got := log.all()
			slices.Sort(got)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("log %.100q, want %.100q", got, c.want)
			}
		})
	}
}

func TestNameAndDirectory(t *testing.T) {
	o, log := script(t, `echo "$0"; pwd -P`)
	wait(t, mustStart(t, o))
	dir, err := filepath.EvalSymlinks(o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := log.all(), []string{"INFO " + o.Path, "INFO " + dir}; !reflect.DeepEqual(got, want) {
		t.Errorf("log %q, want %q", got, want)
	}
}

func TestEnvironmentIsExact(t *testing.T) {
	env, err := exec.LookPath("env")
	if err != nil {
		t.Skip("no program env here")
	}
	t.Setenv("SECRET_OF_THE_NODE", "must not be seen")
	_, log := script(t, "")
	o := Options{Path: env, Dir: t.TempDir(), Env: map[string]string{"nats_url": "nats://x  y", "FOO": "a=b"}, Log: log.log}
	wait(t, mustStart(t, o))
	got := log.all()
	slices.Sort(got)
	want := []string{"INFO FOO=a=b", "INFO HOME=" + o.Dir, "INFO NATS_URL=nats://x  y", "INFO PATH=" + defaultPath}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("environment %q, want %q", got, want)
	}
}

func TestStopIsPolite(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	o, log := script(t, `trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done`)
	p := mustStart(t, o)
	log.await(t, "ready")
	for range 2 {
		stop(t, p)
	}
	if exit := wait(t, p); exit != (runtime.Exit{Code: 5}) {
		t.Errorf("exit %v, want 5", exit)
	}
	if got := log.all(); !slices.Contains(got, "INFO bye") {
		t.Errorf("log %q has no bye", got)
	}
}

func TestStopKillsTheStubborn(t *testing.T) {
	for _, c := range []struct {
		name     string
		grace    time.Duration
		patience time.Duration // of the caller
	}{
		{"after the grace period", 200 * time.Millisecond, patience},
		{"at the end of the context", time.Hour, 200 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			o, log := script(t, `trap '' TERM; echo ready; while :; do sleep 0.1; done`)
			o.Grace = c.grace
			p := mustStart(t, o)
			log.await(t, "ready")
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), c.patience)
			defer cancel()
			if err := p.Stop(ctx); err != nil {
				t.Errorf("stop: %v", err)
			}
			if took := time.Since(began); took < 200*time.Millisecond {
				t.Errorf("killed after %s, before its time", took)
			}
			if exit := wait(t, p); exit != (runtime.Exit{Code: -1, Signal: "killed"}) {
				t.Errorf("exit %v, want killed", exit)
			}
		})
	}
}

func TestWaitEndsWithContext(t *testing.T) {
	o, _ := script(t, "exec sleep 1000")
	p := mustStart(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait: %v, want the context's error", err)
	}
}

// lifeline returns a path for a process to hold open and a function that
// returns when nobody holds it any more.
func lifeline(t *testing.T) (path string, ended func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "lifeline")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		f, err := os.Open(path) // until somebody opens it for writing
		if err == nil {
			_, err = io.Copy(io.Discard, f) // until the last one closes it
			f.Close()
		}
		done <- err
	}()
	return path, func() {
		t.Helper()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("lifeline: %v", err)
			}
		case <-time.After(patience):
			t.Error("a process is still alive")
		}
	}
}

func TestGrandchildrenEndWithTheService(t *testing.T) {
	line, ended := lifeline(t)
	o, _ := script(t, "exec 3> "+line+"; sleep 1000 & exit 0")
	if exit := wait(t, mustStart(t, o)); exit != (runtime.Exit{}) {
		t.Errorf("exit %v", exit)
	}
	ended()

	line, ended = lifeline(t)
	o, log := script(t, "exec 3> "+line+"; sh -c 'trap \"\" TERM; echo ready; while :; do sleep 0.1; done' & wait")
	p := mustStart(t, o)
	log.await(t, "ready")
	stop(t, p)
	ended()
}

// A process that left the group keeps the pipes, but not the caller.
func TestOrphanHoldsOutputOpen(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip("no program setsid here")
	}
	o, log := script(t, `setsid sh -c 'echo $$ > pid; exec sleep 1000' &
while [ ! -s pid ]; do :; done
echo over`)
	p := mustStart(t, o)
	exit := wait(t, p)
	text, err := os.ReadFile(filepath.Join(o.Dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the orphan: %v", err)
	}
	if got := log.all(); exit != (runtime.Exit{}) || !reflect.DeepEqual(got, []string{"INFO over"}) {
		t.Errorf("exit %v, log %q", exit, got)
	}
}

func TestBusyFile(t *testing.T) {
	o, _ := script(t, "exit 4")
	busy, err := os.OpenFile(o.Path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	time.AfterFunc(100*time.Millisecond, func() { busy.Close() })
	if exit := wait(t, mustStart(t, o)); exit != (runtime.Exit{Code: 4}) {
		t.Errorf("exit %v, want 4", exit)
	}
}

func TestStartRefuses(t *testing.T) {
	good, log := script(t, "exit 0")
	for name, c := range map[string]struct {
		change func(*Options)
		code   nex.Code
		want   string
	}{
		"no log":            {func(o *Options) { o.Log = nil }, nex.Internal, "no log"},
		"missing file":      {func(o *Options) { o.Path += ".gone" }, nex.Internal, "no such file"},
		"missing directory": {func(o *Options) { o.Dir += ".gone" }, nex.Internal, "working directory"},
		"script where only binaries run": {func(o *Options) { o.Static = true }, nex.Invalid,
			"native binary is a script; only statically linked binaries run here"},
		"bad variable": {func(o *Options) { o.Env = map[string]string{"A=B": ""} }, nex.Invalid, `environment variable "A=B"`},
	} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			o := good
			c.change(&o)
			p, err := Start(o)
			if err == nil {
				stop(t, p)
				t.Fatal("it starts")
			}
			if nex.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q with code %q, want %q with %q", err, nex.CodeOf(err), c.want, c.code)
			}
		})
	}
	if got := log.all(); got != nil {
		t.Errorf("log %q", got)
	}

	// What the checks cannot see the kernel refuses, and nothing is left over.
	if os.Geteuid() != 0 {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		if err := os.Chmod(good.Path, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Start(good); err == nil {
			t.Error("a file that may not be executed starts")
		}
	}
}
