package node

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"nex"
	"nex/internal/cgroup"
	"nex/internal/confine"
	"nex/internal/machine"
)

// usualHello is how long an agent may take to say hello, if nobody says.
const usualHello = 5 * time.Second

// sandbox is what the machines of a node are.
type sandbox struct {
	launcher machine.Launcher
	kind     nex.Sandbox   // what they really are
	vmm      string        // what runs them, if they are microVMs
	limits   cgroup.Kind   // by what services are limited
	missing  []string      // what this host does not have of the sandbox
	hello    time.Duration // how long an agent may take
	network  io.Closer     // what watches over the networks of machines, nil for nothing
}

// close ends what there is besides machines, after the last of them.
func (s *sandbox) close() {
	if s.network != nil {
		_ = s.network.Close() // nothing is lost
	}
}

// newSandbox makes the configured sandbox.
func newSandbox(ctx context.Context, cfg Config, state *state, groups *cgroup.Root) (*sandbox, error) {
	var s *sandbox
	var err error
	switch cfg.Settings.Sandbox {
	case nex.SandboxNone, nex.SandboxOS:
		s, err = newProcesses(ctx, cfg, state, groups)
	default:
		s, err = newMicroVMs(ctx, cfg, state, groups)
	}
	if err == nil && cfg.Settings.HandshakeTimeout > 0 {
		s.hello = cfg.Settings.HandshakeTimeout
	}
	return s, err
}

// instead says what else there is where there are no microVMs.
const instead = `set "sandbox": "os" (workloads then run behind namespaces, seccomp and Landlock) or "no_sandbox": true (workloads then run as plain processes of this user)`

// newProcesses makes machines that are processes of the host.
func newProcesses(ctx context.Context, cfg Config, state *state, groups *cgroup.Root) (*sandbox, error) {
	s := cfg.Settings
	agent, err := machine.FindAgent(s.AgentPath)
	if err != nil {
		return nil, err
	}
	p := &machine.Processes{Agent: agent, Dir: state.machines(), Cache: state.compiled(), Groups: groups, Log: cfg.Log}
	made := &sandbox{launcher: p, kind: s.Sandbox, limits: groups.Kind(), hello: usualHello}
	if s.Sandbox == nex.SandboxNone {
		cfg.Log.Warn("Workloads run without a sandbox, as plain processes of this user", "agent", agent)
		return made, nil
	}
	p.Confine = &confine.Config{Network: confine.Network(s.OSNetwork), BestEffort: s.BestEffort}
	made.missing, err = p.Probe(ctx)
	if err != nil {
		return nil, fmt.Errorf("sandbox \"os\" does not work on this host: %w; or set \"best_effort\": true to go on with what there is, or \"no_sandbox\": true for code you trust", err)
	}
	if len(made.missing) > 0 {
		cfg.Log.Warn("The sandbox of this node has gaps: this host lacks parts of it", "missing", strings.Join(made.missing, "; "))
	}
	cfg.Log.Info("Workloads run in the OS sandbox", "network", s.OSNetwork, "agent", agent)
	return made, nil
}
