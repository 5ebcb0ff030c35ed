package node

import (
	"context"
	"fmt"
	"strings"

	"nex"
	"nex/internal/cgroup"
	"nex/internal/confine"
	"nex/internal/machine"
)

// newLauncher makes the launcher for the configured sandbox, and says what this
// host does not have of it.
func newLauncher(ctx context.Context, cfg Config, state *state, groups *cgroup.Root) (l machine.Launcher, missing []string, err error) {
	s := cfg.Settings
	if s.Sandbox != nex.SandboxNone && s.Sandbox != nex.SandboxOS {
		return nil, nil, nex.Errorf(nex.Unsupported, "sandbox %q is not available in this build: set \"sandbox\": \"os\" (workloads then run behind namespaces, seccomp and Landlock) "+
			"or \"no_sandbox\": true (workloads then run as plain processes of this user)", s.Sandbox)
	}
	agent, err := machine.FindAgent(s.AgentPath)
	if err != nil {
		return nil, nil, err
	}
	p := &machine.Processes{Agent: agent, Dir: state.machines(), Cache: state.compiled(), Groups: groups, Log: cfg.Log}
	if s.Sandbox == nex.SandboxNone {
		cfg.Log.Warn("Workloads run without a sandbox, as plain processes of this user", "agent", agent)
		return p, nil, nil
	}
	p.Confine = &confine.Config{Network: confine.Network(s.OSNetwork), BestEffort: s.BestEffort}
	missing, err = p.Probe(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("sandbox \"os\" does not work on this host: %w; or set \"best_effort\": true to go on with what there is, or \"no_sandbox\": true for code you trust", err)
	}
	if len(missing) > 0 {
		cfg.Log.Warn("The sandbox of this node has gaps: this host lacks parts of it", "missing", strings.Join(missing, "; "))
	}
	cfg.Log.Info("Workloads run in the OS sandbox", "network", s.OSNetwork, "agent", agent)
	return p, missing, nil
}
