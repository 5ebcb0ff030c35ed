//go:build linux

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/config"
	"nex/internal/machine"
	"nex/internal/nextest"
	"nex/internal/node"
)

// Names under which the test binary is another program, as it is an agent under
// the name of one: see [nextest.AgentPath].
const (
	nodeName    = "chaos-node"
	serverName  = "chaos-nats"
	serviceName = "chaos-service"
	leakedName  = "chaos-leaked"
)

// leakMarker is a file beside an agent that makes it leave a process behind: one
// of the planted faults.
const leakMarker = "leak"

// Role returns the program that the test binary is under its present name, false
// if it is to run the tests, or is an agent.
func Role() (run func() int, ok bool) {
	roles := map[string]func() int{nodeName: beNode, serverName: beServer, serviceName: beService, leakedName: beLeaked}
	run, ok = roles[filepath.Base(os.Args[0])]
	agent := filepath.Base(os.Args[0]) == machine.AgentName() && len(os.Args) == 1 // with arguments it becomes a service
	if _, err := os.Stat(filepath.Join(filepath.Dir(os.Args[0]), leakMarker)); err == nil && agent {
		leak()
	}
	return run, ok
}

// settingsVariable holds what a program of ours is told, as JSON.
const settingsVariable = "NEX_CHAOS"

// told is what programs of ours are told.
type told struct {
	URL   string // of NATS
	Port  int    // of the server
	Dir   string // of state
	Agent string
}

func beTold() (t told, err error) {
	err = json.Unmarshal([]byte(os.Getenv(settingsVariable)), &t)
	return t, err
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// maxMachines is how many machines a node of ours may have.
const maxMachines = 24

// beNode runs a node until SIGTERM. It says "ready ID XKEY" when it is, and on
// SIGUSR1 how many goroutines it has.
func beNode() int {
	t, err := beTold()
	if err != nil {
		return fail(err)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	go func() {
		for range asked {
			fmt.Fprintf(os.Stdout, "goroutines %d\n", runtime.NumGoroutine())
			if os.Getenv("NEX_CHAOS_STACKS") != "" {
				stacks := make([]byte, 1<<20)
				fmt.Fprintf(os.Stderr, "%s\n", stacks[:runtime.Stack(stacks, true)])
			}
		}
	}()
	s := config.Default()
	s.Sandbox, s.AgentPath, s.HandshakeTimeout, s.MaxMachines = nex.SandboxNone, t.Agent, nextest.Patience, maxMachines
	err = node.Run(ctx, node.Config{
		Settings: s, Version: "test", StateDir: t.Dir, Server: t.URL,
		Log:   slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Ready: func(n nex.NodeInfo) { fmt.Fprintln(os.Stdout, "ready", n.NodeID, n.TargetXkey) },
	})
	if err != nil {
		return fail(err)
	}
	return 0
}

// beServer runs a NATS server until SIGTERM. It says "ready" when it is.
func beServer() int {
	t, err := beTold()
	if err != nil {
		return fail(err)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	s, err := nextest.StartServer(t.Dir, t.Port)
	if err != nil {
		return fail(err)
	}
	fmt.Fprintln(os.Stdout, "ready")
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return 0
}

// Environment of beService.
const (
	serviceURL     = "CHAOS_URL"
	serviceSubject = "CHAOS_SUBJECT"
)

// exitWord begins the payload that ends a service with a status.
const exitWord = "exit "

// beService answers what comes on its subject with the same, until it is told to
// exit.
func beService() int {
	nc, err := nats.Connect(os.Getenv(serviceURL), nats.MaxReconnects(-1), nats.ReconnectWait(200*time.Millisecond), nats.RetryOnFailedConnect(true))
	if err != nil {
		return fail(err)
	}
	defer nc.Close()
	exit := make(chan int, 1)
	_, err = nc.Subscribe(os.Getenv(serviceSubject), func(m *nats.Msg) {
		if status, ok := strings.CutPrefix(string(m.Data), exitWord); ok {
			code, _ := strconv.Atoi(status) // of the driver's making
			exit <- code
			return
		}
		_ = m.Respond(m.Data) // what is lost is the driver's to find out
	})
	if err != nil {
		return fail(err)
	}
	return <-exit
}

// leakedLife bounds how long a process is left behind for if nobody finds it.
const leakedLife = 10 * time.Minute

// leak leaves a process behind that the agent's node cannot find. What starts it
// ends before this process becomes one that orphans are given to.
func leak() {
	if err := exec.Command(filepath.Join(filepath.Dir(os.Args[0]), leakedName)).Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// stay is the argument of the process that is left behind.
const stay = "stay"

func beLeaked() int {
	if len(os.Args) < 2 {
		cmd := exec.Command(os.Args[0], stay)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return fail(err)
		}
		return 0
	}
	leaveGroups()
	<-time.After(leakedLife)
	return 0
}

// leaveGroups moves this process out of the groups of its machine, as far as it
// may: where it may not there are none.
func leaveGroups() {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(own)) { // "7:pids:/nex/ID/agent", "0::/nex/ID/agent"
		_, rest, _ := strings.Cut(line, ":")
		controllers, _, _ := strings.Cut(rest, ":")
		mount := filepath.Join("/sys/fs/cgroup", strings.TrimPrefix(controllers, "name="))
		_ = os.WriteFile(filepath.Join(mount, "cgroup.procs"), []byte("0"), 0) // see above
	}
}
