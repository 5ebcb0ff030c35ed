package nextest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nex"
	"nex/internal/guest"
	"nex/internal/machine"
)

// Machines is a kind of machines that the suite [Launchers] is to test.
type Machines struct {
	// New makes a launcher whose machines have their directories in dir. It may be
	// asked in another process of this test binary, too.
	New func(t *testing.T, dir string) machine.Launcher
	// Boot is how long a boot, or an answer, may take; [Patience] if it is 0.
	Boot time.Duration
	// Boots is how many machines are booted in a row.
	Boots int
	// Kernel says that machines have a kernel of their own.
	Kernel bool
	// Sweep does what a node does when it starts after it was killed, for the
	// machines with their directories in dir. Nil if nothing is left but those.
	Sweep func(t *testing.T, dir string)
	// Fake machines are no processes, and their agent runs nothing.
	Fake bool
}

// Launchers checks that machines of a kind keep the promises of
// [machine.Launcher] and [machine.Machine]: what runs in them, how they end,
// by their node or by themselves, and that then nothing of them is left.
func Launchers(t *testing.T, k Machines) {
	if k.Boot == 0 {
		k.Boot = Patience
	}
	for _, c := range []struct {
		name  string
		test  func(Machines, *testing.T)
		wants bool
	}{
		{"works", Machines.works, !k.Fake},
		{"is given up without a hello", Machines.silent, true},
		{"is killed", Machines.killed, !k.Fake},
		{"panics", Machines.panics, k.Kernel},
		{"loses its link", Machines.cut, true},
		{"is destroyed twice", Machines.destroyed, true},
		{"boots again and again", Machines.boots, true},
		{"loses its node", Machines.orphaned, !k.Fake},
	} {
		if c.wants {
			t.Run(c.name, func(t *testing.T) { c.test(k, t) })
		}
	}
}

// stand is a launcher on test, which notes what it launches.
type stand struct {
	machine.Launcher
	kind Machines
	dir  string
	log  *slog.Logger

	mu       sync.Mutex
	launched []machine.Machine
}

func (k Machines) stand(t *testing.T) *stand {
	t.Helper()
	s := &stand{kind: k, dir: t.TempDir(), log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	s.Launcher = k.New(t, s.dir)
	return s
}

// Launch implements [machine.Launcher].
func (s *stand) Launch(ctx context.Context, id string) (machine.Machine, error) {
	m, err := s.Launcher.Launch(ctx, id)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.launched = append(s.launched, m)
	}
	return m, err
}

// last is the machine that was launched last.
func (s *stand) last(t *testing.T) machine.Machine {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.launched) == 0 {
		t.Fatal("nothing was launched")
	}
	return s.launched[len(s.launched)-1]
}

// take boots a machine.
func (s *stand) take(t *testing.T) *machine.Guest {
	t.Helper()
	g, err := s.pool(s.kind.Boot).Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Release)
	return g
}

func (s *stand) pool(hello time.Duration) *machine.Pool {
	return machine.NewPool(machine.PoolConfig{Launcher: s, Hello: hello, Ping: s.kind.Boot, Log: s.log})
}

// await waits for what ends a machine.
func (s *stand) await(t *testing.T, gone <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-gone:
	case <-time.After(s.kind.Boot):
		t.Fatalf("waited %v for %s", s.kind.Boot, what)
	}
}

// nothingLeft looks for what a machine that is gone may have left.
func (s *stand) nothingLeft(t *testing.T, id string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(s.dir, id)); err == nil {
		t.Error("its directory is left")
	}
	if _, err := os.Stat(filepath.Join("/var/run/netns", "nex-"+id)); err == nil {
		t.Error("its network namespace is left")
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == id {
			t.Errorf("its control group %s is left", path)
		}
		return nil
	})
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		if line, err := os.ReadFile(path); err == nil && strings.Contains(string(line), id) {
			t.Errorf("a process of it is left: %q", line)
		}
	}
}

func (k Machines) works(t *testing.T) {
	s := k.stand(t)
	g := s.take(t)
	if h := g.Hello(); len(h.Types) != 3 || h.Version == "" {
		t.Errorf("hello %+v", h)
	}
	lines := make(chan string, 100)
	exits := make(chan guest.Exit, 1)
	sink := guest.Sink{
		Log:    func(_ slog.Level, text string) { lines <- text },
		Exited: func(e guest.Exit) { exits <- e },
		Host: func(_ context.Context, c guest.HostCall) (guest.Message, error) {
			return guest.Message{Payload: []byte(c.Service + " has " + c.Args["key"])}, nil
		},
	}
	deploy := func(id string, kind nex.WorkloadType, artifact []byte, args ...string) {
		t.Helper()
		digest := sha256.Sum256(artifact)
		d := guest.Deploy{
			ID: id, Namespace: "n", Name: id, File: id, Type: kind, SHA256: hex.EncodeToString(digest[:]), Argv: args, Static: true,
			Settings: nex.Settings{Engine: nex.EngineQuickJS, FunctionMemoryMiB: 64, StopGraceMS: 1000},
		}
		if err := g.Deploy(t.Context(), d, bytes.NewReader(artifact), sink); err != nil {
			t.Fatalf("deploy %s: %v", id, err)
		}
	}
	deploy("js", nex.V8, []byte(`(subject, payload) => { console.log("a line"); return subject === "ask" ? hostServices.kv.get("it") : payload }`))
	deploy("wasm", nex.Wasm, read(t, "../../examples/wasm/echofunction/echofunction.wasm"))
	big := make([]byte, 700<<10) // of several frames
	_, _ = rand.Read(big)        // never fails
	for _, c := range []struct{ id, subject, payload, want string }{
		{"js", "x", "héllo", "héllo"}, {"js", "x", string(big), string(big)}, {"js", "ask", "", "kv has it"}, {"wasm", "s", "hi", "his"},
	} {
		got, err := s.call(g, guest.Trigger{ID: c.id, Subject: c.subject, Payload: []byte(c.payload), Timeout: k.Boot})
		if err != nil || string(got) != c.want {
			t.Errorf("%s says %.40q, %v; want %.40q", c.id, got, err, c.want)
		}
		if c.id == "js" {
			if line := Await(t, lines, "what a function prints"); line != "a line" {
				t.Errorf("printed %q", line)
			}
		}
	}
	deploy("service", nex.Native, read(t, GuestProgram(t)), "leave")
	for Await(t, lines, "what a service prints") != "leaving" { // before, a sandbox may tell what it lacks
	}
	if e := Await(t, exits, "the service's end"); e.Code != 3 {
		t.Errorf("the service ended with %+v", e)
	}
	deploy("service", nex.Native, read(t, GuestProgram(t)), "wait")
	if u, err := g.Usage(); nex.CodeOf(err) != nex.Unsupported && (err != nil || u.MemoryBytes == 0 || u.PIDs == 0) {
		t.Errorf("the machine uses %+v, %v", u, err)
	}
	g.Release()
	s.nothingLeft(t, g.ID())
}

// call has a function called.
func (s *stand) call(g *machine.Guest, trigger guest.Trigger) ([]byte, error) {
	type result struct {
		guest.Result
		err error
	}
	done := make(chan result, 1)
	g.Invoke(trigger, time.Now().Add(s.kind.Boot), true, func(r guest.Result, err error) { done <- result{r, err} })
	r := <-done
	return r.Payload, r.err
}

// read returns a file, whose path is from here.
func read(t *testing.T, path string) []byte {
	t.Helper()
	if !filepath.IsAbs(path) {
		_, here, _, _ := goruntime.Caller(0)
		path = filepath.Join(filepath.Dir(here), path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// silent: time for a hello is over before any agent can have said one.
func (k Machines) silent(t *testing.T) {
	s := k.stand(t)
	if _, err := s.pool(time.Nanosecond).Take(t.Context()); err == nil {
		t.Error("took a machine that had not said hello")
	}
	m := s.last(t)
	s.await(t, m.Gone(), "the machine's end")
	s.nothingLeft(t, m.ID())
}

// pid is the process that a machine is on its host: as it tells itself, else the
// one that works in its directory.
func (s *stand) pid(t *testing.T, m machine.Machine) int {
	t.Helper()
	if p, ok := m.(interface{ PID() int }); ok {
		return p.PID()
	}
	all, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if dir, err := os.Readlink(path); err == nil && dir == filepath.Join(s.dir, m.ID()) {
			n, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			return n
		}
	}
	t.Fatal("the machine's process was not found")
	panic("unreachable")
}

// faults takes what a workload hears of the loss of its machine.
func faults() (guest.Sink, <-chan guest.Fault) {
	lost := make(chan guest.Fault, 1)
	return guest.Sink{
		Log: func(slog.Level, string) {}, Exited: func(guest.Exit) {}, Lost: func(f guest.Fault) { lost <- f },
	}, lost
}

// serve deploys the test service.
func serve(t *testing.T, g *machine.Guest, sink guest.Sink, args ...string) error {
	t.Helper()
	program := read(t, GuestProgram(t))
	digest := sha256.Sum256(program)
	d := guest.Deploy{ID: "w", Namespace: "n", Name: "w", Type: nex.Native, SHA256: hex.EncodeToString(digest[:]), Argv: args, Static: true}
	return g.Deploy(t.Context(), d, bytes.NewReader(program), sink)
}

func (k Machines) killed(t *testing.T) {
	s := k.stand(t)
	g := s.take(t)
	sink, lost := faults()
	if err := serve(t, g, sink, "wait"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(s.pid(t, s.last(t)), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.await(t, g.Gone(), "the machine's end")
	Await(t, lost, "the workload to hear of it")
	s.nothingLeft(t, g.ID())
}

// panics has the kernel crash, as a service that is its root can.
func (k Machines) panics(t *testing.T) {
	s := k.stand(t)
	g := s.take(t)
	sink, lost := faults()
	if err := serve(t, g, sink, "panic"); err != nil {
		t.Log("the kernel was faster than the answer:", err)
	} else {
		Await(t, lost, "the workload to hear of it")
	}
	s.await(t, g.Gone(), "the machine's end")
	s.nothingLeft(t, g.ID())
}

// cut: a machine whose link is closed ends by itself.
func (k Machines) cut(t *testing.T) {
	s := k.stand(t)
	m, err := s.Launch(t.Context(), "cut-"+strings.ToLower(rand.Text()[:8]))
	if err != nil {
		t.Fatal(err)
	}
	defer s.destroy(t, m)
	ctx, cancel := context.WithTimeout(t.Context(), k.Boot)
	defer cancel()
	client, err := guest.Greet(ctx, m.Link())
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	s.await(t, m.Gone(), "the machine's end")
	s.nothingLeft(t, m.ID())
}

func (s *stand) destroy(t *testing.T, m machine.Machine) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), s.kind.Boot)
	defer cancel()
	if err := m.Destroy(ctx); err != nil {
		t.Error(err)
	}
}

func (k Machines) destroyed(t *testing.T) {
	s := k.stand(t)
	m, err := s.Launch(t.Context(), "twice-"+strings.ToLower(rand.Text()[:8]))
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() { s.destroy(t, m) })
	}
	all.Wait()
	s.destroy(t, m)
	select {
	case <-m.Gone():
	default:
		t.Error("it is destroyed, but not gone")
	}
	s.nothingLeft(t, m.ID())
}

func (k Machines) boots(t *testing.T) {
	s := k.stand(t)
	p := s.pool(k.Boot)
	var took []time.Duration
	for range k.Boots {
		began := time.Now()
		g, err := p.Take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
		g.Release()
	}
	slices.Sort(took)
	t.Logf("%d boots until the agent said hello: %v to %v, half of them in %v", len(took), took[0], took[len(took)-1], took[len(took)/2])
	for _, m := range s.launched {
		s.nothingLeft(t, m.ID())
	}
}
