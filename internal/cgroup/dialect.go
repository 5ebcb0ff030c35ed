package cgroup

import (
	"strconv"
	"strings"

	"nex"
)

// procs is the file of the processes in a group, in both versions.
const procs = "cgroup.procs"

const (
	// period is the time in microseconds in which a group may use its share of
	// the processors, and least the smallest share the kernel takes.
	period, least = 100_000, 1_000
)

// dialect is what one version calls things.
type dialect struct {
	kind        Kind
	controllers []string
	delegate    string // file that lets the groups below use controllers; "" where all may
	killAll     string // file that kills all of a group; "" where there is none

	settings func(nex.Resources) []setting
	usage    [4]reading // of processor time in ns, memory, reclaimable memory, processes
	hits     [3]reading // of memory, processes, processor time
}

// setting is what a file is set to.
type setting struct {
	controller, file, value string
	optional                bool // not every kernel has the file
}

// reading is where a number is: in a file, or in a field of it.
type reading struct {
	controller, file, field string
	times                   int64 // 0 is 1
}

var version1 = dialect{
	kind:        V1,
	controllers: []string{"cpu", "cpuacct", "memory", "pids"},
	settings: func(r nex.Resources) (s []setting) {
		if r.CPUs > 0 {
			s = append(s, setting{"cpu", "cpu.cfs_period_us", strconv.Itoa(period), false},
				setting{"cpu", "cpu.cfs_quota_us", quota(r.CPUs), false})
		}
		if r.MemoryMiB > 0 { // with swap it cannot be less than without
			s = append(s, setting{"memory", "memory.limit_in_bytes", bytes(r.MemoryMiB), false},
				setting{"memory", "memory.memsw.limit_in_bytes", bytes(r.MemoryMiB), true})
		}
		return append(s, pidsMax(r)...)
	},
	usage: [4]reading{
		{"cpuacct", "cpuacct.usage", "", 1},
		{"memory", "memory.usage_in_bytes", "", 1},
		{"memory", "memory.stat", "total_inactive_file", 1},
		{"pids", "pids.current", "", 1},
	},
	hits: [3]reading{
		{"memory", "memory.oom_control", "oom_kill", 1},
		{"pids", "pids.events", "max", 1},
		{"cpu", "cpu.stat", "nr_throttled", 1},
	},
}

var version2 = dialect{
	kind:        V2,
	controllers: []string{"cpu", "memory", "pids"},
	delegate:    "cgroup.subtree_control",
	killAll:     "cgroup.kill",
	settings: func(r nex.Resources) (s []setting) {
		if r.CPUs > 0 {
			s = append(s, setting{"cpu", "cpu.max", quota(r.CPUs) + " " + strconv.Itoa(period), false})
		}
		if r.MemoryMiB > 0 {
			s = append(s, setting{"memory", "memory.max", bytes(r.MemoryMiB), false},
				setting{"memory", "memory.swap.max", "0", true},
				setting{"memory", "memory.oom.group", "1", true})
		}
		return append(s, pidsMax(r)...)
	},
	usage: [4]reading{
		{"cpu", "cpu.stat", "usage_usec", 1000},
		{"memory", "memory.current", "", 1},
		{"memory", "memory.stat", "inactive_file", 1},
		{"pids", "pids.current", "", 1},
	},
	hits: [3]reading{
		{"memory", "memory.events", "oom_kill", 1},
		{"pids", "pids.events", "max", 1},
		{"cpu", "cpu.stat", "nr_throttled", 1},
	},
}

// controllersOn is what [dialect.delegate] is set to.
func (d dialect) controllersOn() string { return "+" + strings.Join(d.controllers, " +") }

func quota(cpus float64) string { return strconv.Itoa(max(int(cpus*period), least)) }

func bytes(mib int) string { return strconv.FormatInt(int64(mib)<<20, 10) }

func pidsMax(r nex.Resources) []setting {
	if r.PIDs == 0 {
		return nil
	}
	return []setting{{"pids", "pids.max", strconv.Itoa(r.PIDs), false}}
}
