package machine_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/xid"

	"nex"
	"nex/internal/cgroup"
	"nex/internal/guest"
	"nex/internal/machine"
	"nex/internal/nextest"
)

// groups returns where machines of this test get cgroups, if they can.
func groups(t *testing.T) *cgroup.Root {
	t.Helper()
	root, err := cgroup.Open()
	if err != nil {
		t.Skip("this host gives the tests no cgroups: ", err)
	}
	t.Cleanup(root.Close)
	return root
}

// bootWith launches a real agent in cgroups, or without.
func bootWith(t *testing.T, root *cgroup.Root) (g *machine.Guest, dir string) {
	t.Helper()
	dir = t.TempDir()
	p := fill(t, &machine.Processes{Agent: nextest.AgentPath(t), Dir: dir, Groups: root, Log: slog.New(slog.DiscardHandler)}, 0)
	g, err := p.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Release)
	return g, dir
}

// run has a guest run a script until it says that it is ready.
func run(t *testing.T, g *machine.Guest, script string, r nex.Resources, sink guest.Sink) (lines chan string) {
	t.Helper()
	lines = make(chan string, 100)
	sink.Log = func(_ slog.Level, text string) {
		select {
		case lines <- text:
		default:
		}
	}
	if sink.Exited == nil {
		sink.Exited = func(guest.Exit) {}
	}
	d := guest.Deploy{ID: "w", Name: "service", Type: nex.Native, SHA256: sha256Hex(script), Settings: nex.Settings{Resources: r}}
	if err := g.Deploy(t.Context(), d, strings.NewReader(script), sink); err != nil {
		t.Fatal(err)
	}
	return lines
}

// await waits for a line with a word, and returns what follows.
func await(t *testing.T, lines chan string, word string) string {
	t.Helper()
	for {
		if rest, ok := strings.CutPrefix(nextest.Await(t, lines, word), word); ok {
			return strings.TrimSpace(rest)
		}
	}
}

// below lists the processes that work below a directory.
func below(t *testing.T, dir string) (pids []int) {
	for pid := range processes(t) {
		if cwd, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd"); err == nil && strings.HasPrefix(cwd, dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

const escape = "#!/bin/sh\nsetsid sh -c 'trap \"\" TERM; echo escaped; while :; do sleep 0.1; done' &\nwait\n"

// TestKilledAgentTakesEscapedServicesAlong kills an agent whose service has made
// a session of its own for a process that nobody is the parent of then.
func TestKilledAgentTakesEscapedServicesAlong(t *testing.T) {
	nextest.Program(t, "setsid")
	g, dir := bootWith(t, groups(t))
	await(t, run(t, g, escape, nex.Resources{}, guest.Sink{}), "escaped")
	usage, err := g.Usage()
	if err != nil || usage.PIDs < 2 || usage.MemoryBytes <= 0 {
		t.Errorf("usage %+v, %v", usage, err)
	}
	var agent int
	for _, pid := range below(t, dir) {
		if cwd, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd"); cwd == filepath.Join(dir, g.ID()) {
			agent = pid
		}
	}
	if err := syscall.Kill(agent, syscall.SIGKILL); agent == 0 || err != nil {
		t.Fatal(agent, err)
	}
	nextest.Await(t, g.Gone(), "the machine to be gone")
	if pids := below(t, dir); len(pids) > 0 {
		t.Errorf("processes of the machine are left: %v", pids)
	}
	if left := groupsNamed(g.ID()); len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
}

// groupsNamed looks for cgroups of a machine.
func groupsNamed(id string) (found []string) {
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == id {
			found = append(found, path)
			return fs.SkipDir
		}
		return nil
	})
	return found
}

// TestServiceWithoutGroups: limits of a process are kept, and what it leaves is
// found by the agent alone.
func TestServiceWithoutGroups(t *testing.T) {
	nextest.Program(t, "setsid")
	g, dir := bootWith(t, nil)
	script := "#!/bin/sh\nulimit -n\nulimit -d\necho \"score $(cat /proc/self/oom_score_adj)\"\n" + strings.TrimPrefix(escape, "#!/bin/sh\n")
	lines := run(t, g, script, nex.Resources{Files: 99, MemoryMiB: 300}, guest.Sink{})
	await(t, lines, "99")
	await(t, lines, strconv.Itoa(300<<10))
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(own)))
	if got, want := await(t, lines, "score"), strconv.Itoa(min(n+500+250, 1000)); got != want {
		t.Errorf("the service's score is %s, want %s", got, want)
	}
	await(t, lines, "escaped")
	if usage, err := g.Usage(); err != nil || usage.PIDs < 2 {
		t.Errorf("usage %+v, %v", usage, err)
	}
	if err := g.Undeploy(t.Context(), "w"); err != nil {
		t.Fatal(err)
	}
	for _, pid := range below(t, filepath.Join(dir, g.ID(), "w")) {
		t.Errorf("process %d of the service is left", pid)
	}
}

// TestSweep: what a node that was killed left in cgroups is ended by the id of
// its machine, and no other group is touched.
func TestSweep(t *testing.T) {
	root := groups(t)
	left, err := root.Make("left-by-another-node")
	if err != nil {
		t.Fatal(err)
	}
	other, err := root.Make("somebody-elses")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := other.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	sleeper, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	if err := left.Add(sleeper.Pid); err != nil {
		_ = sleeper.Kill()
		t.Error(err)
	}
	ended := make(chan *os.ProcessState, 1)
	go func() {
		s, _ := sleeper.Wait()
		ended <- s
	}()
	for _, id := range []string{"left-by-another-node", "never-was", "..", "."} {
		if err := root.Sweep(t.Context(), id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	if s := nextest.Await(t, ended, "the process to be killed"); s.Success() {
		t.Errorf("it ended with %v", s)
	}
	if found := groupsNamed("left-by-another-node"); len(found) > 0 {
		t.Errorf("left: %v", found)
	}
	if found := groupsNamed("somebody-elses"); len(found) == 0 {
		t.Error("a group of another is gone")
	}
	if _, err := root.Make("../x"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a group elsewhere: %v", err)
	}
}

// TestSweepElsewhere: the node that was killed was in another group than the one
// that is started again, as after another login.
func TestSweepElsewhere(t *testing.T) {
	root := groups(t)
	known, id := xid.New().String(), xid.New().String()
	g, err := root.Make(known)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Remove(context.Background()) }()
	other := filepath.Join(filepath.Dir(filepath.Dir(groupsNamed(known)[0])), "elsewhere-"+known)
	work := filepath.Join(other, "nex", id, "work")
	if err := os.MkdirAll(work, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = os.Remove(filepath.Join(other, "nex")), os.Remove(other) })
	sleep := exec.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- sleep.Wait() }()
	defer func() { _ = sleep.Process.Kill() }()
	if err := os.WriteFile(filepath.Join(work, "cgroup.procs"), []byte(strconv.Itoa(sleep.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	if err := root.Sweep(t.Context(), "somebody", id); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(other, "nex")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("cgroups are left: %v", err)
	}
	nextest.Await(t, ended, "the end of what was left")
}
