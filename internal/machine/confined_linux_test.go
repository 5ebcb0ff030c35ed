package machine_test

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"nex/internal/confine"
	"nex/internal/guest"
	"nex/internal/machine"
	"nex/internal/nextest"
)

// confined makes machines in the OS sandbox.
func confined(t *testing.T, network confine.Network) *machine.Processes {
	return &machine.Processes{Agent: nextest.StaticAgent(t), Confine: &confine.Config{Network: network}}
}

// serveGuest runs the program of testdata/guest as a service.
func serveGuest(t *testing.T, g *machine.Guest, env map[string]string, args ...string) <-chan string {
	t.Helper()
	program, err := os.ReadFile(nextest.GuestProgram(t))
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, g, guest.Deploy{Static: true, Argv: args, Environment: env}, program)
}

// awaitLine returns what comes after a prefix, which a service prints.
func awaitLine(t *testing.T, lines <-chan string, prefix string) string {
	t.Helper()
	for {
		if rest, ok := strings.CutPrefix(nextest.Await(t, lines, "the line "+prefix), prefix); ok {
			return rest
		}
	}
}

// TestEscapes has a service try to get out of the sandbox in every way we
// know, one by one, and then sees whether its agent still works.
func TestEscapes(t *testing.T) {
	for _, network := range []confine.Network{confine.NoNetwork, confine.HostNetwork} {
		t.Run("network "+string(network), func(t *testing.T) { escapes(t, network) })
	}
}

func escapes(t *testing.T, network confine.Network) {
	t.Setenv("NEX_TEST_SECRET", "HOST_SECRET")
	env := hostThings(t)
	if network == confine.HostNetwork { // it is what such a machine may do
		delete(env, "HOST_TCP")
	}
	g, pid, _ := boot(t, confined(t, network))
	lines := serveGuest(t, g, env, "escape")
	n := 0
	for {
		line := nextest.Await(t, lines, "the end of the attempts")
		if strings.HasPrefix(line, "end of attempts") {
			break
		}
		attempt, ok := strings.CutPrefix(line, "attempt ")
		if !ok {
			continue
		}
		n++
		name, result, _ := strings.Cut(attempt, "\t")
		t.Run(name, func(t *testing.T) {
			if why, refused := strings.CutPrefix(result, "refused\t"); refused {
				t.Log(why)
			} else {
				t.Error(result)
			}
		})
	}
	if n < 200 && runtime.GOARCH == "amd64" {
		t.Errorf("only %d attempts", n)
	}
	if _, alive := processes(t)[pid]; !alive || g.Err() != nil {
		t.Errorf("the agent did not survive: %v", g.Err())
	}
	if err := g.Undeploy(t.Context(), "w"); err != nil {
		t.Errorf("the agent does not stop the service: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(env["HOST_DIR"], "outside*")); len(left) > 0 {
		t.Errorf("written outside: %v", left)
	}
}

// hostThings makes what a service must not reach, open to every user, and
// returns it as a service's environment.
func hostThings(t *testing.T) map[string]string {
	t.Helper()
	dir, err := os.MkdirTemp("", "host")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	abstract := "@nex-test-" + strconv.Itoa(os.Getpid())
	env := map[string]string{"HOST_DIR": dir, "HOST_PID": strconv.Itoa(os.Getpid()), "HOST_ABSTRACT": abstract}
	for _, l := range []struct{ network, address, variable string }{
		{"unix", filepath.Join(dir, "socket"), ""}, {"unix", abstract, ""}, {"tcp", "127.0.0.1:0", "HOST_TCP"},
	} {
		listener, err := net.Listen(l.network, l.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
		if l.variable != "" {
			env[l.variable] = listener.Addr().String()
		}
	}
	return env
}

// inside lists the processes in the pid namespace of a machine.
func inside(t *testing.T, namespace string) (pids []int) {
	t.Helper()
	for pid := range processes(t) {
		if ns, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/pid"); err == nil && ns == namespace {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestConfinedMachineEndsWhole kills an agent whose service started processes
// in sessions of their own, which nobody finds in a plain machine.
func TestConfinedMachineEndsWhole(t *testing.T) {
	g, pid, dir := boot(t, confined(t, confine.NoNetwork))
	namespace, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	awaitLine(t, serveGuest(t, g, nil, "family"), "started")
	if pids := inside(t, namespace); len(pids) != 4 { // agent, service, two others
		t.Errorf("processes %v", pids)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	nextest.Await(t, g.Gone(), "the machine to be gone")
	if pids := inside(t, namespace); len(pids) > 0 {
		t.Errorf("processes %v are left", pids)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("mounts are left: %v\n%s", err, mounts)
	}
}

// TestConfinedAgentReaps: processes whose parents have ended are the agent's.
func TestConfinedAgentReaps(t *testing.T) {
	g, _, _ := boot(t, confined(t, confine.NoNetwork))
	if n := awaitLine(t, serveGuest(t, g, nil, "orphans"), "zombies: "); n != "0" {
		t.Errorf("%s zombies", n)
	}
}

// TestConfinedMachinesEndWithTheirNode kills a process that has launched a
// machine, as kill -9 would a node.
func TestConfinedMachinesEndWithTheirNode(t *testing.T) {
	const role = "NEX_TEST_DOOMED"
	if os.Getenv(role) != "" {
		g, pid, _ := boot(t, confined(t, confine.NoNetwork))
		awaitLine(t, serveGuest(t, g, nil, "family"), "started")
		_, _ = os.NewFile(3, "pipe").WriteString(strconv.Itoa(pid) + "\n")
		select {}
	}
	nextest.StaticAgent(t)
	nextest.GuestProgram(t)
	child, output := rerun(t, "^TestConfinedMachinesEndWithTheirNode$", role+"=1")
	line, err := output.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(line)
	namespace, err := os.Readlink("/proc/" + pid + "/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	var pollers []unix.PollFd
	for _, pid := range inside(t, namespace) {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		pollers = append(pollers, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	if len(pollers) != 4 {
		t.Errorf("%d processes in the machine", len(pollers))
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // it was killed
	for i := range pollers {
		if n, err := unix.Poll(pollers[i:i+1], int(nextest.Patience.Milliseconds())); n != 1 {
			t.Errorf("a process outlives its node: %v", err)
		}
	}
}

// TestConfinedAgentSurvivesSignals that a service might send it, were there no
// Landlock: all but those two that the kernel keeps from a process 1.
func TestConfinedAgentSurvivesSignals(t *testing.T) {
	g, pid, _ := boot(t, confined(t, confine.NoNetwork))
	for range 50 { // Go blocks signals for moments
		for n := syscall.Signal(1); n <= 64; n++ {
			if n == syscall.SIGKILL || n == syscall.SIGSTOP {
				continue
			}
			if err := syscall.Kill(pid, n); err != nil {
				t.Fatal(n, err)
			}
		}
		if err := g.Undeploy(t.Context(), "nothing"); err != nil { // an answer
			t.Fatal(err)
		}
	}
	awaitLine(t, serveGuest(t, g, nil, "family"), "started")
}

// TestConfinedServiceLocksItsFiles: they are removed all the same, also where the
// node is not root.
func TestConfinedServiceLocksItsFiles(t *testing.T) {
	g, _, dir := boot(t, confined(t, confine.NoNetwork))
	awaitLine(t, serveGuest(t, g, nil, "lock"), "locked")
	g.Release()
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestProbe: this host has all that the sandbox needs.
func TestProbe(t *testing.T) {
	l := confined(t, confine.HostNetwork)
	l.Dir, l.Log = t.TempDir(), slog.New(slog.DiscardHandler)
	if missing, err := l.Probe(t.Context()); err != nil || len(missing) > 0 {
		t.Error(missing, err)
	}
	if left, _ := os.ReadDir(l.Dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
