package node

import (
	"runtime"
	"strings"
	"testing"

	"nex"
	"nex/internal/cgroup"
	"nex/internal/workload"
)

// TestLimitsThatCannotBeKept are refused, unless the operator wants best effort.
func TestLimitsThatCannotBeKept(t *testing.T) {
	all := nex.Resources{CPUs: 0.5, MemoryMiB: 64, PIDs: 10, Files: 20, DiskMiB: 30}
	for _, c := range []struct {
		kind       cgroup.Kind
		bestEffort bool
		asked      nex.Resources
		lacking    string
	}{
		{kind: cgroup.V2, asked: all},
		{kind: cgroup.V1, asked: all},
		{kind: cgroup.Rlimits},
		{kind: cgroup.Rlimits, asked: nex.Resources{Files: 20, DiskMiB: 30}},
		{kind: cgroup.Rlimits, asked: nex.Resources{Files: 20, MemoryMiB: 1}, lacking: "limit memory_mib:"},
		{kind: cgroup.Rlimits, asked: all, lacking: "limit cpus, memory_mib, pids:"},
		{kind: cgroup.Rlimits, asked: all, bestEffort: true},
	} {
		if runtime.GOOS != "linux" {
			t.Skip("the rest is limited on Linux alone")
		}
		n := &node{limits: c.kind}
		n.cfg.Settings.BestEffort = c.bestEffort
		err := n.checkResources(&candidate{spec: workload.Spec{Settings: nex.Settings{Resources: c.asked}}})
		switch {
		case c.lacking == "" && err != nil:
			t.Errorf("%s: %v", c.kind, err)
		case c.lacking != "" && (nex.CodeOf(err) != nex.Unsupported || !strings.Contains(err.Error(), c.lacking) || !strings.Contains(err.Error(), "best_effort")):
			t.Errorf("%s: %v, want %s", c.kind, err, c.lacking)
		}
	}
}
