package node

import (
	"log/slog"
	"runtime"
	"strings"

	"nex"
	"nex/internal/cgroup"
)

// openGroups finds out by what services are limited here.
func openGroups(log *slog.Logger) *cgroup.Root {
	groups, err := cgroup.Open()
	if err != nil {
		log.Info("Services cannot be limited in processors, memory and processes", "cause", err)
	}
	return groups
}

// checkResources refuses limits that this node cannot keep, unless its operator
// said that it may try what it can.
func (n *node) checkResources(c *candidate) error {
	r := c.spec.Settings.Resources
	if n.cfg.Settings.BestEffort {
		return nil
	}
	var lacking []string
	for _, l := range []struct {
		name  string
		asked bool
		works bool
	}{
		{"cpus", r.CPUs > 0, n.limits != cgroup.Rlimits},
		{"memory_mib", r.MemoryMiB > 0, n.limits != cgroup.Rlimits},
		{"pids", r.PIDs > 0, n.limits != cgroup.Rlimits},
		{"files", r.Files > 0, runtime.GOOS == "linux"},
		{"disk_mib", r.DiskMiB > 0, runtime.GOOS == "linux"},
	} {
		if l.asked && !l.works {
			lacking = append(lacking, l.name)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	return nex.Errorf(nex.Unsupported, "this node cannot limit %s: it may make no cgroups (run it as root, or as a systemd unit with Delegate=yes), "+
		"or ask for a node with the tag nex.limits=cgroup2, or set \"best_effort\": true in its configuration to have it try what it can", strings.Join(lacking, ", "))
}
