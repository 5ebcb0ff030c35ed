package firecracker

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"nex/internal/cgroup"
)

// Check says what is wrong with a jail on a host whose cgroups are of the given
// kind.
//
// The jailer moves Firecracker into cgroups of its own, controller by controller, which
// is fine for those of version 1 that the node does not use. With version 2 a process
// is in one group only, and in the node's there are the machine's limits.
func (j *Jail) Check(kind cgroup.Kind) error {
	if j.ChrootBase != "" && !filepath.IsAbs(j.ChrootBase) {
		return fmt.Errorf("jailer.chroot_base %q is no absolute path", j.ChrootBase)
	}
	if len(j.Cgroup) > 0 && kind != cgroup.V1 {
		return fmt.Errorf("jailer.cgroup is for hosts with cgroups of version 1, and this one has %s: have the service manager set that for the node itself, as by AllowedCPUs= of systemd", kind)
	}
	for _, setting := range j.Cgroup {
		file, value, _ := strings.Cut(setting, "=")
		controller, name, _ := strings.Cut(file, ".")
		if controller == "" || name == "" || value == "" || strings.ContainsAny(file, "/ ") {
			return fmt.Errorf("jailer.cgroup %q is not like cpuset.cpus=0-3", setting)
		}
		if slices.Contains([]string{"memory", "cpu", "cpuacct", "pids"}, controller) {
			return fmt.Errorf("jailer.cgroup %q cannot be: the node itself uses %s, by machine_template and the limits of services", setting, controller)
		}
	}
	return nil
}
