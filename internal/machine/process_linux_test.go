package machine_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"nex"
	"nex/internal/confine"
	"nex/internal/guest"
	"nex/internal/machine"
	"nex/internal/nextest"
)

// plain machines have no sandbox.
func plain(t *testing.T) *machine.Processes {
	return &machine.Processes{Agent: nextest.AgentPath(t)}
}

// kinds runs a test over plain machines and confined ones.
func kinds(t *testing.T, test func(t *testing.T, l *machine.Processes)) {
	t.Run("plain", func(t *testing.T) { test(t, plain(t)) })
	for _, network := range []confine.Network{confine.NoNetwork, confine.HostNetwork} {
		t.Run("confined, network "+string(network), func(t *testing.T) { test(t, confined(t, network)) })
	}
}

// boot launches a real agent and returns its guest and its process id.
func boot(t *testing.T, l *machine.Processes) (g *machine.Guest, pid int, dir string) {
	t.Helper()
	return bootOn(t, l, links["socket pair"])
}

// bootOn is [boot] over a kind of link.
func bootOn(t *testing.T, l *machine.Processes, link func(*machine.Processes) machine.Launcher) (g *machine.Guest, pid int, dir string) {
	t.Helper()
	l.Dir, l.Log = t.TempDir(), slog.New(slog.NewTextHandler(t.Output(), nil))
	before := children(t)
	p := fill(t, link(l), 0)
	g, err := p.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Release)
	for pid := range children(t) {
		if !before[pid] {
			return g, pid, l.Dir
		}
	}
	t.Fatal("the agent's process was not found")
	panic("unreachable")
}

// children are this process's.
func children(t *testing.T) map[int]bool {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	all := map[int]bool{}
	for _, path := range tasks {
		list, _ := os.ReadFile(path) // the thread may have ended
		for _, field := range strings.Fields(string(list)) {
			pid, _ := strconv.Atoi(field)
			all[pid] = true
		}
	}
	return all
}

// processes maps the live processes of this host to their sessions.
func processes(t *testing.T) map[int]int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	all := map[int]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat)[strings.LastIndex(string(stat), ")")+1:])
		if fields[0] != "Z" {
			all[pid], _ = strconv.Atoi(fields[3])
		}
	}
	return all
}

func TestProcessHasItsOwnDirectoryAndCleanEnvironment(t *testing.T) {
	t.Setenv("NEX_TEST_SECRET", "do not pass on")
	overEachLink(t, func(t *testing.T, link func(*machine.Processes) machine.Launcher) {
		ownDirectoryAndCleanEnvironment(t, plain(t), link)
	})
	kinds(t, func(t *testing.T, l *machine.Processes) { ownDirectoryAndCleanEnvironment(t, l, links["socket pair"]) })
}

func ownDirectoryAndCleanEnvironment(t *testing.T, l *machine.Processes, link func(*machine.Processes) machine.Launcher) {
	g, pid, dir := bootOn(t, l, link)
	fi, err := os.Stat(filepath.Join(dir, g.ID()))
	if err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("machine directory: %v, %v", fi.Mode(), err)
	}
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil || strings.Contains(string(env), "NEX_TEST_SECRET") {
		t.Errorf("agent's environment is %q, %v", env, err)
	}
	if version := g.Hello().Version; version != "test" && version != "development" || len(g.Hello().Types) != 3 {
		t.Errorf("hello %+v", g.Hello())
	}
}

// TestAgentsAreKilledBeforeTheirNode when the kernel runs out of memory, and so
// is what they start.
func TestAgentsAreKilledBeforeTheirNode(t *testing.T) {
	score := func(t *testing.T, process string) int {
		t.Helper()
		data, err := os.ReadFile("/proc/" + process + "/oom_score_adj")
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	kinds(t, func(t *testing.T, l *machine.Processes) {
		_, pid, _ := boot(t, l)
		if got, want := score(t, strconv.Itoa(pid)), min(score(t, "self")+500, 1000); got != want {
			t.Errorf("the agent's score is %d, want %d", got, want)
		}
	})
}

// TestKilledAgentTakesItsServicesAlong kills an agent whose service has
// children in a process group of their own.
func TestKilledAgentTakesItsServicesAlong(t *testing.T) {
	g, pid, dir := boot(t, plain(t))
	script := "#!/bin/sh\nset -m\nsleep 1000 &\nsleep 1000 &\necho started\nwait\n"
	lines := serve(t, g, guest.Deploy{}, []byte(script))
	for line := range lines {
		if line == "started" { // not what the shell says of a missing terminal
			break
		}
	}
	if n := inSession(t, pid); n < 4 { // agent, shell, two sleeps
		t.Fatalf("%d processes in the agent's session", n)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	nextest.Await(t, g.Gone(), "the machine to be gone")
	if n := inSession(t, pid); n > 0 {
		t.Errorf("%d processes of the machine are left", n)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestHungAgentIsLost: one that is stopped, with nothing asked of it.
func TestHungAgentIsLost(t *testing.T) {
	dir := t.TempDir()
	p := machine.NewPool(machine.PoolConfig{
		Launcher: &machine.Processes{Agent: nextest.AgentPath(t), Dir: dir, Log: slog.New(slog.DiscardHandler)},
		Hello:    nextest.Patience, Ping: 500 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
	})
	g, err := p.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer g.Release()
	pids := 0
	for pid := range processes(t) {
		if cwd, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd"); err == nil && cwd == filepath.Join(dir, g.ID()) {
			pids++
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
	}
	if pids != 1 {
		t.Fatalf("%d processes of the agent", pids)
	}
	nextest.Await(t, g.Gone(), "the machine's end")
	if err := g.Err(); err == nil || !strings.Contains(err.Error(), "hung") {
		t.Errorf("the link ended with %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// serve deploys a service, which must not end, and returns what it prints.
func serve(t *testing.T, g *machine.Guest, d guest.Deploy, program []byte) <-chan string {
	t.Helper()
	lines := make(chan string, 10_000)
	sink := guest.Sink{
		Log:    func(_ slog.Level, text string) { lines <- text },
		Exited: func(e guest.Exit) { t.Errorf("service exited: %s", e.Message); lines <- "exited" },
	}
	d.ID, d.Name, d.Type, d.SHA256 = "w", "service", nex.Native, sha256Hex(string(program))
	if err := g.Deploy(t.Context(), d, bytes.NewReader(program), sink); err != nil {
		t.Fatal(err)
	}
	return lines
}

func inSession(t *testing.T, session int) int {
	n := 0
	for _, s := range processes(t) {
		if s == session {
			n++
		}
	}
	return n
}

func TestLaunchErrorsLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	l := &machine.Processes{Agent: "/nonexistent/nex-agent", Dir: dir, Log: slog.New(slog.DiscardHandler)}
	if _, err := l.Launch(context.Background(), "m"); err == nil || !strings.Contains(err.Error(), "/nonexistent/nex-agent") {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestProgramThatIsNoAgent launches something that never says hello.
func TestProgramThatIsNoAgent(t *testing.T) {
	dir := t.TempDir()
	p := machine.NewPool(machine.PoolConfig{
		Launcher: &machine.Processes{Agent: "/bin/cat", Dir: dir, Log: slog.New(slog.DiscardHandler)},
		Hello:    200 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
	})
	if _, err := p.Take(t.Context()); err == nil {
		t.Error("took a machine without an agent")
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFindAgent(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if _, err := machine.FindAgent(""); err == nil || !strings.Contains(err.Error(), "agent_path") {
		t.Errorf("without an agent: %v", err)
	}
	if _, err := machine.FindAgent(filepath.Join(dir, "missing")); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a configured agent that is missing: %v", err)
	}
	path := filepath.Join(dir, machine.AgentName())
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := machine.FindAgent(""); err != nil || got != path {
		t.Errorf("on PATH: %q, %v", got, err)
	}
}
