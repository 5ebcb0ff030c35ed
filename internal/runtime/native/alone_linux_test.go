package native

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"nex"
	"nex/internal/runtime"
)

// alone is script for a service that nobody else has children beside.
func alone(t *testing.T, text string) (Options, *recorder) {
	t.Helper()
	o, log := script(t, text)
	o.Alone = true
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) }) // the other tests adopt nobody
	return o, log
}

// TestShimIsNotSeen: a service that is started by one is what it would be
// without.
func TestShimIsNotSeen(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	const text = `echo "$0 $# [$1] [$2]"; pwd -P; env | sort; cat; grep -E 'Sig(Blk|Ign)' /proc/self/status; exit 9`
	var seen [2][]string
	for i := range seen {
		o, log := alone(t, text)
		o.Alone = i == 1
		o.Args, o.Env = []string{"a b", "\xff"}, map[string]string{"SECRET": "x y", "GODEBUG": "gctrace=1"}
		if exit := wait(t, mustStart(t, o)); exit != (runtime.Exit{Code: 9}) {
			t.Errorf("exit %v", exit)
		}
		for _, line := range log.all() {
			if strings.HasPrefix(line, "INFO Sig") { // without, it has what this process was started with
				if !strings.HasSuffix(line, "\t0000000000000000") && i == 1 {
					t.Errorf("with a shim %s", line)
				}
				continue
			}
			line = strings.ReplaceAll(strings.ReplaceAll(line, o.Path, "PATH"), o.Dir, "DIR")
			seen[i] = append(seen[i], line)
		}
	}
	if !slices.Equal(seen[0], seen[1]) {
		t.Errorf("without shim %q\nwith %q", seen[0], seen[1])
	}
}

// TestShimTellsWhatFails in the words of a start without one.
func TestShimTellsWhatFails(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var texts [2]string
	o, log := alone(t, "exit 0")
	if err := os.Chmod(o.Path, 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range texts {
		o.Alone = i == 1
		_, err := Start(o)
		if err == nil {
			t.Fatal("a file that may not be executed starts")
		}
		texts[i] = err.Error()
	}
	if texts[0] != texts[1] || !strings.Contains(texts[1], o.Path+": permission denied") {
		t.Errorf("without shim %q, with %q", texts[0], texts[1])
	}
	door, err := os.Open(os.DevNull) // it leads nowhere, and cannot be written to
	if err != nil {
		t.Fatal(err)
	}
	defer door.Close()
	o.Doors = []*os.File{door}
	if _, err := Start(o); err == nil || !strings.Contains(err.Error(), "enter cgroup: bad file descriptor") {
		t.Errorf("behind a closed door: %v", err)
	}
	if got := log.all(); got != nil {
		t.Errorf("log %q", got)
	}
}

func TestLimitsOfAProcess(t *testing.T) {
	o, log := alone(t, `echo $(ulimit -n) $(ulimit -H -n) $(ulimit -f) $(ulimit -d); grep core /proc/self/limits`)
	o.Resources = nex.Resources{Files: 77, DiskMiB: 2, MemoryMiB: 500}
	wait(t, mustStart(t, o))
	got := log.all()
	if len(got) != 2 || got[0] != "INFO 77 77 4096 512000" { // of 512 and of 1024 bytes
		t.Fatalf("limits %q", got)
	}
	// With a limit of 0 the kernel starts the host's program for core files.
	if core := strings.Fields(got[1]); !slices.Equal(core[5:7], []string{"1", "1"}) {
		t.Errorf("limits %q", got)
	}
	o, log = alone(t, `dd if=/dev/zero of=file bs=1000000 count=5 2>/dev/null; exec dd if=/dev/zero of=file bs=1000000 count=5`)
	o.Resources.DiskMiB = 2
	if exit := wait(t, mustStart(t, o)); !exit.TooLarge || exit.Signal != "file size limit exceeded" {
		t.Errorf("exit %+v, log %q", exit, log.all())
	}
}

// TestOrphansAreReaped while their service runs, and without taking its exit.
func TestOrphansAreReaped(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	wanted := fifo(t, t.TempDir())
	o, log := alone(t, `for i in 1 2 3 4 5 6 7 8 9; do sh -c 'sh -c "exit 5" & exit 0'; done; echo made; read x < `+wanted+`; exit 6`)
	p := mustStart(t, o)
	log.await(t, "made")
	late := time.After(patience)
	for dead := 1; dead > 0; {
		dead = 0
		for _, q := range allProcesses() {
			if q.dead && q.parent == os.Getpid() {
				dead++
			}
		}
		select {
		case <-late:
			t.Fatalf("%d orphans are dead and not reaped", dead)
		case <-time.After(time.Millisecond):
		}
	}
	if err := os.WriteFile(wanted, []byte("x\n"), 0o600); err != nil {
		t.Error(err)
	}
	if exit := wait(t, p); exit != (runtime.Exit{Code: 6}) {
		t.Errorf("exit %v, want that of the service", exit)
	}
}

// TestNothingEscapes: neither in a session of its own nor by losing its parent,
// when the service ends and when it is stopped.
func TestNothingEscapes(t *testing.T) {
	for _, end := range []string{"exit 0", "while :; do sleep 0.1; done"} {
		line, ended := lifeline(t)
		o, log := alone(t, "exec 3> "+line+"\n(setsid sh -c 'trap \"\" TERM HUP; echo away; : > away; while :; do sleep 0.1; done' &)\nwhile [ ! -e away ]; do :; done\n"+end)
		o.Grace = 200 * time.Millisecond
		p := mustStart(t, o)
		log.await(t, "away")
		stop(t, p)
		ended()
		for _, q := range allProcesses() {
			if q.parent == os.Getpid() {
				t.Errorf("%s: process %d is left, dead %t", end, q.pid, q.dead)
			}
		}
	}
}

// TestOneIsAlone: a second service cannot be.
func TestOneIsAlone(t *testing.T) {
	o, _ := alone(t, "exec sleep 1000")
	p := mustStart(t, o)
	if second, err := Start(o); err == nil || !strings.Contains(err.Error(), "one already") {
		stop(t, second)
		t.Errorf("a second one: %v", err)
	}
	stop(t, p)
	stop(t, mustStart(t, o))
}

// fifo makes one in a directory.
func fifo(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
