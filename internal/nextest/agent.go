package nextest

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"nex"
	"nex/internal/agent"
	"nex/internal/cgroup"
	"nex/internal/confine"
	"nex/internal/guest"
	"nex/internal/machine"
	"nex/internal/nextest/leaks"
	"nex/internal/vmnet/forward"
	"nex/internal/vmnet/tap"
)

// Main runs a package's tests and fails if they leave anything: see package
// leaks. The test binary can also be a real agent, see [AgentPath], and what a node
// has forward a guest's connections.
func Main(m *testing.M) {
	if code, was := agent.Shim(os.Args); was {
		os.Exit(code)
	}
	if filepath.Base(os.Args[0]) == machine.AgentName() {
		os.Exit(RunAgent())
	}
	if tap.Called(os.Args[0], os.Getenv("CNI_COMMAND")) {
		os.Exit(tap.Run(os.Stdout))
	}
	if address, ok := forward.Called(os.Args); ok {
		if err := forward.Run(os.Stdin, os.Stdout, address); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(Run(m))
}

// Run is [Main] without the agent, for a TestMain that has more to do. It returns
// the exit code.
func Run(m leaks.Tests) int { return leaks.Run(tests{m}) }

// tests remove what was built for them.
type tests struct{ leaks.Tests }

func (t tests) Run() int {
	code := t.Tests.Run()
	_ = os.RemoveAll(built.dir) // "" is nothing
	return code
}

// AgentPath returns an executable that is a real agent: this test binary under
// the agent's name, so that agents are checked for races too. The package's
// TestMain must be [Main].
func AgentPath(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatalf("find test binary: %v", err)
	}
	path := filepath.Join(t.TempDir(), machine.AgentName())
	if err := os.Symlink(self, path); err != nil {
		t.Fatalf("name test binary: %v", err)
	}
	return path
}

// RunAgent is the main function of a real agent; it returns the exit code.
func RunAgent() int {
	if code, was := agent.Shim(os.Args); was {
		return code
	}
	if name, lies := takeLie(); lies {
		return runLiar(name)
	}
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("development") // as programs are that were built without make
		return 0
	}
	err := confine.Main(func(box confine.Sandbox) error {
		dir, err := os.Getwd()
		if err != nil {
			return err
		}
		link, err := agent.InheritedLink()
		if err != nil {
			return err
		}
		doors, err := agent.InheritedDoors()
		if err != nil {
			return err
		}
		return agent.Run(context.Background(), link, agent.Config{
			Version: "test", Dir: dir, Cache: os.Getenv(guest.CacheVariable), Quit: func() { os.Exit(1) },
			Confine: box.Service, Notice: box.Notice, Alone: true, Doors: doors,
		})
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "nex-agent:", err)
		return 1
	}
	return 0
}

// FakeLauncher is a [machine.Launcher] whose machines are goroutines of the
// test: their agent is a [guest.Handler]. Set the fields before use.
type FakeLauncher struct {
	// Handler makes the agent of one machine.
	Handler func(id string) guest.Handler
	// Fail, if set, is asked before each launch; its error fails it.
	Fail func() error
	// Silent agents never say hello.
	Silent bool
	// Clock, if set, hears what time it is at the node.
	Clock func(time.Time)
	// Agent, if set, is the whole agent of each machine in place of Handler.
	Agent func(ctx context.Context, link net.Conn)

	mu    sync.Mutex
	boots []*FakeMachine
}

var _ machine.Launcher = (*FakeLauncher)(nil)

// FakeMachine is a machine of a [FakeLauncher].
type FakeMachine struct {
	id   string
	link net.Conn
	end  context.CancelFunc
	gone chan struct{}
}

// Launch boots a fake machine.
func (l *FakeLauncher) Launch(_ context.Context, id string) (machine.Machine, error) {
	if l.Fail != nil {
		if err := l.Fail(); err != nil {
			return nil, err
		}
	}
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	m := &FakeMachine{id: id, link: near, end: cancel, gone: make(chan struct{})}
	go func() {
		defer close(m.gone)
		if l.Silent {
			<-ctx.Done()
			_ = far.Close() // a pipe's Close returns nil
			return
		}
		if l.Agent != nil {
			l.Agent(ctx, far)
			return
		}
		s := guest.NewServer(far, l.Handler(id))
		s.Clock = l.Clock
		_ = s.Run(ctx, guest.Hello{Version: "fake"}) // how the link ended is the node's to judge
	}()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.boots = append(l.boots, m)
	return m, nil
}

// Booted returns all machines launched so far.
func (l *FakeLauncher) Booted() []*FakeMachine {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*FakeMachine(nil), l.boots...)
}

// ID is the machine's id.
func (m *FakeMachine) ID() string { return m.id }

// Link is the node's end of the link.
func (m *FakeMachine) Link() net.Conn { return m.link }

// Gone is closed when the machine has ended.
func (m *FakeMachine) Gone() <-chan struct{} { return m.gone }

// Admit bounds nothing: all machines share one process.
func (m *FakeMachine) Admit(nex.Resources) error { return nil }

// Usage tells nothing.
func (m *FakeMachine) Usage() (nex.Usage, error) { return nex.Usage{}, nil }

// Hits tells that no limit was met.
func (m *FakeMachine) Hits() (cgroup.Hits, error) { return cgroup.Hits{}, nil }

// Crash ends the machine's agent, as kill -9 would.
func (m *FakeMachine) Crash() { m.end() }

// Destroy ends the machine.
func (m *FakeMachine) Destroy(ctx context.Context) error {
	m.end()
	select {
	case <-m.gone:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
