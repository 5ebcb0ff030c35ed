package firecracker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nex"
	"nex/internal/cgroup"
	"nex/internal/guest"
	"nex/internal/machine"
	"nex/internal/machine/firecracker/fcemu"
	"nex/internal/machine/microvm"
	"nex/internal/nextest"
)

// bootTime is how long a guest may take to boot on a busy machine whose
// processor is emulated.
const bootTime = 2 * time.Minute

// realFirecracker and realJailer name the real programs on a host with KVM: all
// tests that boot run with them then.
const realFirecracker, realJailer = "NEX_TEST_FIRECRACKER", "NEX_TEST_JAILER"

// programs are those that tests boot with.
func programs(t *testing.T) fcemu.Programs {
	t.Helper()
	p := fcemu.Programs{Firecracker: os.Getenv(realFirecracker), Jailer: os.Getenv(realJailer)}
	if p.Firecracker == "" {
		return fcemu.Install(t, nextest.Program(t, "qemu-system-x86_64"), "")
	}
	if _, err := Version(t.Context(), p.Firecracker); err != nil {
		t.Fatal(err)
	}
	return p
}

// recordsOf is where machines with their directories in dir have their records.
func recordsOf(dir string) string { return dir + "-records" }

// newLauncher returns a launcher of machines with a real image.
func newLauncher(t *testing.T) *Launcher {
	t.Helper()
	p := programs(t)
	image := nextest.GuestImage(t, nextest.StaticAgent(t))
	dir := t.TempDir()
	l := &Launcher{
		Config: &microvm.Config{
			Kernel: filepath.Join(image, "vmlinux"), Initramfs: filepath.Join(image, "initramfs"), RootFS: filepath.Join(image, "rootfs.ext4"),
			CPUs: 1, MemoryMiB: 192, DiskMiB: 64, Dir: dir, Records: recordsOf(dir), Templates: t.TempDir(),
			Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		},
		Firecracker: p.Firecracker, Boot: bootTime,
		DriveLimit: &RateLimiter{Ops: &TokenBucket{RefillTime: 100, Size: 1000}},
	}
	if groups, err := cgroup.Open(); err == nil {
		l.Groups = groups
		t.Cleanup(groups.Close)
	}
	if os.Geteuid() == 0 && p.Jailer != "" {
		l.Jail = &Jail{Jailer: p.Jailer}
	}
	t.Cleanup(func() {
		if left, err := os.ReadDir(l.Dir); err != nil || len(left) > 0 {
			t.Errorf("machines left behind: %v, %v", left, err)
		}
		if left, err := os.ReadDir(l.Records); err == nil && len(left) > 0 {
			t.Errorf("records left behind: %v", left)
		}
		if l.users.Count() > 0 {
			t.Errorf("users left behind: %d", l.users.Count())
		}
	})
	return l
}

// eachKind runs a test over machines in a jail, which takes root, and without.
func eachKind(t *testing.T, test func(t *testing.T, l *Launcher)) {
	t.Run("jail", func(t *testing.T) {
		l := newLauncher(t)
		if l.Jail == nil {
			t.Skip("the jailer takes root, and " + realJailer + " where " + realFirecracker + " is set")
		}
		test(t, l)
	})
	t.Run("no jail", func(t *testing.T) {
		l := newLauncher(t)
		l.Jail = nil
		test(t, l)
	})
}

// fill makes a pool of machines.
func fill(t *testing.T, l machine.Launcher, size int) *machine.Pool {
	t.Helper()
	p := machine.NewPool(machine.PoolConfig{
		Launcher: l, Size: size, Hello: bootTime, Ping: 10 * time.Minute, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); nextest.Await(t, done, "the pool to end") })
	return p
}

// take boots a machine, or takes one that is ready.
func take(t *testing.T, p *machine.Pool) *machine.Guest {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootTime)
	defer cancel()
	g, err := p.Take(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Release)
	return g
}

// deploy deploys a workload with the id w.
func deploy(t *testing.T, g *machine.Guest, d guest.Deploy, artifact []byte, sink guest.Sink) {
	t.Helper()
	sum := sha256.Sum256(artifact)
	d.ID, d.Name, d.SHA256 = "w", "workload", hex.EncodeToString(sum[:])
	d.Settings.FunctionTimeoutMS, d.Settings.FunctionMemoryMiB, d.Settings.StopGraceMS = 60_000, 64, 1000
	if sink.Log == nil {
		sink.Log = func(_ slog.Level, text string) { t.Log("workload says", text) }
	}
	ctx, cancel := context.WithTimeout(t.Context(), bootTime)
	defer cancel()
	if err := g.Deploy(ctx, d, bytes.NewReader(artifact), sink); err != nil {
		t.Fatal(err)
	}
}

// call calls the function w.
func call(t *testing.T, g *machine.Guest, payload string) string {
	t.Helper()
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	g.Invoke(guest.Trigger{ID: "w", Subject: "s", Payload: []byte(payload), Timeout: time.Minute}, time.Now().Add(bootTime), true, func(r guest.Result, err error) {
		done <- result{string(r.Payload), err}
	})
	r := nextest.Await(t, done, "a reply")
	if r.err != nil {
		t.Error(r.err)
	}
	return r.text
}

const echo = `(subject, payload) => payload`

func TestFunctionInAMachine(t *testing.T) {
	eachKind(t, func(t *testing.T, l *Launcher) {
		start := time.Now()
		g := take(t, fill(t, l, 1))
		t.Logf("ready after %v", time.Since(start))
		deploy(t, g, guest.Deploy{Type: nex.V8}, []byte(echo), guest.Sink{})
		for _, payload := range []string{"hi", strings.Repeat("long ", 1<<18)} {
			if got := call(t, g, payload); got != payload {
				t.Errorf("%d bytes came back as %d", len(payload), len(got))
			}
		}
		usage, err := g.Usage()
		if err != nil || usage.MemoryBytes < 64<<20 {
			t.Errorf("the machine uses %+v, %v", usage, err)
		}
		start = time.Now()
		g.Release()
		t.Logf("gone after %v", time.Since(start))
	})
}

func TestTwoMachinesAtOnce(t *testing.T) {
	l := newLauncher(t)
	p := fill(t, l, 2)
	var guests []*machine.Guest
	for range 2 {
		guests = append(guests, take(t, p))
	}
	var all sync.WaitGroup
	for i, g := range guests {
		deploy(t, g, guest.Deploy{Type: nex.V8}, fmt.Appendf(nil, `(subject, payload) => "%d"`, i), guest.Sink{})
		all.Go(func() {
			if got := call(t, g, ""); got != fmt.Sprint(i) {
				t.Errorf("machine %d answers %q", i, got)
			}
		})
	}
	all.Wait()
	if l.Jail != nil {
		a, b := recordOf(t, l, guests[0].ID()), recordOf(t, l, guests[1].ID())
		if a.PID == b.PID || a.PID == 0 {
			t.Errorf("records %+v and %+v", a, b)
		}
		if l.users.Count() < 2 {
			t.Errorf("two machines have %d users", l.users.Count())
		}
	}
}

func recordOf(t *testing.T, l *Launcher, id string) (r record) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(l.Records, id, recordFile))
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLaunchErrorsLeaveNothing(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, l *Launcher)
		want  string
	}{
		"no program":    {func(_ *testing.T, l *Launcher) { l.Firecracker += "-gone" }, "no such file"},
		"no kernel":     {func(_ *testing.T, l *Launcher) { l.Kernel = "/nonexistent" }, "/nonexistent"},
		"too many CPUs": {func(_ *testing.T, l *Launcher) { l.CPUs = 33 }, "/machine-config"},
		"no agent": {func(t *testing.T, l *Launcher) {
			l.Boot = time.Millisecond
		}, "agent_handshake_timeout_ms"},
		"guest that ends": {func(t *testing.T, l *Launcher) { l.RootFS = filepath.Join(t.TempDir(), "empty"); makeFile(t, l.RootFS) }, "ended"},
	} {
		t.Run(name, func(t *testing.T) {
			eachKind(t, func(t *testing.T, l *Launcher) {
				c.spoil(t, l)
				m, err := l.Launch(t.Context(), "m")
				if err == nil {
					t.Fatal("it booted", m.Destroy(context.Background()))
				}
				if !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
			})
		})
	}
}

// makeFile makes a file of a MiB without anything in it, which everybody may read.
func makeFile(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, 1<<20)); err != nil {
		t.Fatal(err)
	}
}

func TestGivenUpLaunchLeavesNothing(t *testing.T) {
	l := newLauncher(t)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := l.Launch(ctx, "m"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestLaunchers is the suite for all launchers.
func TestLaunchers(t *testing.T) {
	groups, _ := cgroup.Open() // nil where there are none
	t.Cleanup(groups.Close)
	eachKind(t, func(t *testing.T, l *Launcher) {
		nextest.Launchers(t, nextest.Machines{
			Boot: bootTime, Boots: 3, Kernel: true,
			New: func(t *testing.T, dir string) machine.Launcher {
				own := newLauncher(t)
				own.Dir, own.Records, own.Jail, own.Groups = dir, recordsOf(dir), l.Jail, groups
				return own
			},
			Sweep: func(t *testing.T, dir string) {
				left, err := os.ReadDir(recordsOf(dir))
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range left {
					records := filepath.Join(recordsOf(dir), d.Name())
					if err := errors.Join(groups.Sweep(t.Context(), d.Name()), Sweep(t.Context(), records), os.Remove(records)); err != nil {
						t.Error(err)
					}
				}
			},
		})
	})
}
