package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nex"
	"nex/internal/nextest/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// The files of a kernel as far as groups use them. A directory stands in for the
// file system of cgroups: this tests names, values and the order of things, not
// what a kernel makes of them. With version 1 the tests of package machine and
// node meet the real one.
var kernelFiles = map[Kind]map[string]string{
	V2: {
		"cgroup.procs": "", "cgroup.subtree_control": "", "cpu.max": "max 100000\n", "memory.max": "max\n", "memory.swap.max": "max\n",
		"pids.max": "max\n", "memory.current": "5000\n", "memory.stat": "anon 1\ninactive_file 1000\nactive_file 7\n", "pids.current": "3\n",
		"cpu.stat":      "usage_usec 2500000\nuser_usec 1\nnr_periods 5\nnr_throttled 4\n",
		"memory.events": "low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 1\n", "pids.events": "max 6\n",
	},
	V1: {
		"cgroup.procs": "", "cpu.cfs_period_us": "100000\n", "cpu.cfs_quota_us": "-1\n", "memory.limit_in_bytes": "9223372036854771712\n",
		"pids.max": "max\n", "memory.usage_in_bytes": "5000\n", "memory.stat": "inactive_file 1\ntotal_inactive_file 1000\n", "pids.current": "3\n",
		"cpuacct.usage": "2500000000\n", "cpu.stat": "nr_periods 5\nnr_throttled 4\nthrottled_time 3\n",
		"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "pids.events": "max 6\n",
	},
}

// fake makes a root in a directory, and a group with the files of a kernel.
func fake(t *testing.T, d dialect) (*Group, func(group, file string) string) {
	t.Helper()
	r := &Root{dialect: d, dirs: map[string]string{}}
	dir := filepath.Join(t.TempDir(), top)
	for _, c := range d.controllers {
		r.dirs[c] = dir
	}
	if err := r.try(); err != nil {
		t.Fatal(err)
	}
	g := &Group{root: r, id: "m"}
	for _, at := range []string{"", "m", "m/agent", "m/work"} {
		if err := os.MkdirAll(filepath.Join(dir, at), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, content := range kernelFiles[d.kind] {
			if err := os.WriteFile(filepath.Join(dir, at, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return g, func(group, file string) string {
		data, err := os.ReadFile(filepath.Join(dir, "m", group, file))
		if err != nil {
			t.Error(err)
		}
		return string(data)
	}
}

func TestLimitsAndUsage(t *testing.T) {
	for _, c := range []struct {
		dialect dialect
		want    map[string]string // by file, as the start of what it holds: a kernel's file is no text that is written over
	}{
		{version2, map[string]string{"cpu.max": "50000 100000", "memory.max": "67108864", "memory.swap.max": "0", "pids.max": "12"}},
		{version1, map[string]string{"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000", "memory.limit_in_bytes": "67108864", "pids.max": "12"}},
	} {
		t.Run(string(c.dialect.kind), func(t *testing.T) {
			g, read := fake(t, c.dialect)
			if err := g.Limit(nex.Resources{CPUs: 0.5, MemoryMiB: 64, PIDs: 12}); err != nil {
				t.Fatal(err) // memory.oom.group and memory.memsw are not there, as with some kernels
			}
			for file, want := range c.want {
				if got := read(work, file); !strings.HasPrefix(got, want) {
					t.Errorf("%s is %q, want %q", file, got, want)
				}
				if got := read(agent, file); got != kernelFiles[c.dialect.kind][file] {
					t.Errorf("the agent has a limit: %s is %q", file, got)
				}
			}
			if u, err := g.Usage(); err != nil || u != (nex.Usage{CPUMS: 2500, MemoryBytes: 4000, PIDs: 3}) {
				t.Errorf("usage %+v, %v", u, err)
			}
			if h, err := g.Hits(); err != nil || h != (Hits{OOMKills: 2, PIDs: 6, Throttled: 4}) {
				t.Errorf("hits %+v, %v", h, err)
			}
			if err := g.Add(77); err != nil || read(agent, procs) != "77" || read(work, procs) != "" {
				t.Errorf("added %q and %q, %v", read(agent, procs), read(work, procs), err)
			}
			if err := g.AddLimited(78); err != nil || read(agent, procs) != "77" || read(work, procs) != "78" {
				t.Errorf("added %q and %q with limits, %v", read(agent, procs), read(work, procs), err)
			}
			doors, err := g.Work()
			if err != nil {
				t.Fatal(err)
			}
			defer CloseAll(doors)
			if want := len(g.root.hierarchies()); len(doors) != want {
				t.Errorf("%d doors, want %d", len(doors), want)
			}
			if _, err := doors[0].WriteString("0"); err != nil || read(work, procs) != "08" {
				t.Errorf("the door leads to %q, %v", read(work, procs), err)
			}
		})
	}
}

// TestOpenReadsTheKernelsTables: where the groups of a node are, on hosts of
// several kinds.
func TestOpenReadsTheKernelsTables(t *testing.T) {
	dir := t.TempDir()
	self := strconv.Itoa(os.Getpid())
	tree := func(name string, files map[string]string) string {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		for file, content := range files {
			if err := os.WriteFile(filepath.Join(at, file), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return at
	}
	all := "cpuset cpu io memory hugetlb pids\n"
	moved := map[string]string{"cgroup.controllers": all, "cgroup.type": "domain\n", "cgroup.procs": self + "\n", "cgroup.subtree_control": ""}
	crowd := map[string]string{"cgroup.controllers": all, "cgroup.type": "domain\n", "cgroup.procs": self + "\n1\n", "cgroup.subtree_control": ""}
	mount := func(at, root, system, options string) string {
		return "30 20 0:1 " + root + " " + strings.ReplaceAll(at, " ", `\040`) + " rw,relatime shared:1 - " + system + " x " + options + "\n"
	}
	for _, c := range []struct {
		name, mounts, groups string
		want                 Kind
		at                   string // the directory of the groups of processes
		why                  string
	}{
		{
			name: "root of version 2", mounts: mount(tree("a b", map[string]string{"cgroup.controllers": all, "cgroup.subtree_control": ""}), "/", "cgroup2", "rw"),
			groups: "0::/\n", want: V2, at: "a b/nex",
		},
		{
			name: "in a container, with controllers named together",
			mounts: mount(tree("c", nil), "/box", "cgroup", "rw,cpu,cpuacct") + mount(tree("m", nil), "/box", "cgroup", "rw,memory") +
				mount(tree("p", nil), "/box", "cgroup", "rw,pids"),
			groups: "3:cpu,cpuacct:/box/in\n2:memory:/box\n1:pids:/box\n", want: V1, at: "p/nex",
		},
		{
			name:   "moved already",
			mounts: mount(filepath.Dir(tree("svc/node", moved)), "/system.slice", "cgroup2", "rw"),
			groups: "0::/system.slice/node\n", want: Rlimits, why: "cgroup.subtree_control",
		},
		{
			name: "not alone", mounts: mount(tree("crowd", crowd), "/", "cgroup2", "rw"), groups: "0::/\n",
			want: Rlimits, why: "other processes are in the node's group",
		},
		{
			name: "few controllers", mounts: mount(tree("few", map[string]string{"cgroup.controllers": "hugetlb\n"}), "/", "cgroup2", "rw"),
			groups: "0::/\n", want: Rlimits, why: "has no controller cpu",
		},
		{name: "elsewhere", mounts: mount(dir, "/mine", "cgroup2", "rw"), groups: "0::/other\n", want: Rlimits, why: "it is not mounted"},
		{name: "none", want: Rlimits, why: "it is not mounted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := open(c.mounts, c.groups)
			if r.Kind() != c.want {
				t.Fatalf("kind %s, %v, want %s", r.Kind(), err, c.want)
			}
			if c.want == Rlimits {
				if err == nil || !strings.Contains(err.Error(), c.why) {
					t.Errorf("error %v, want %q", err, c.why)
				}
				return
			}
			if got := r.dirs["pids"]; got != filepath.Join(dir, c.at) {
				t.Errorf("groups are made in %s, want %s", got, c.at)
			}
		})
	}
}

// TestNodeMakesRoom: with version 2 a node that is alone in its group moves into
// one below.
func TestNodeMakesRoom(t *testing.T) {
	dir := t.TempDir()
	self := strconv.Itoa(os.Getpid())
	for name, content := range map[string]string{"cgroup.type": "domain\n", "cgroup.procs": self + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, home), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, home, procs), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := makeRoom(dir)
	if err != nil || got != dir {
		t.Errorf("groups go to %s, %v", got, err)
	}
	if moved, _ := os.ReadFile(filepath.Join(dir, home, procs)); string(moved) != self {
		t.Errorf("moved %q", moved)
	}
	if again, err := makeRoom(filepath.Join(dir, home)); err != nil || again != dir {
		t.Errorf("when it starts again: %s, %v", again, err)
	}
}

// TestRealGroup limits, counts and ends a real process, where the host lets
// tests make cgroups.
func TestRealGroup(t *testing.T) {
	root, err := Open()
	if err != nil {
		t.Skip("this host gives the tests no cgroups: ", err)
	}
	defer root.Close()
	g, err := root.Make("test-" + strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	p, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Kill() }()
	ended := make(chan struct{})
	go func() {
		_, _ = p.Wait()
		close(ended)
	}()
	if err := g.Add(p.Pid); err != nil {
		t.Error(err)
	}
	if err := g.Limit(nex.Resources{CPUs: 1.5, MemoryMiB: 10, PIDs: 5}); err != nil {
		t.Error(err)
	}
	if got := g.processes(); !slices.Equal(got, []int{p.Pid}) {
		t.Errorf("inside are %v, not %d", got, p.Pid)
	}
	doors, err := g.Work()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range doors {
		if _, err := d.WriteString(strconv.Itoa(p.Pid)); err != nil {
			t.Error(err)
		}
		d.Close()
	}
	if u, err := g.Usage(); err != nil || u.PIDs != 1 || u.MemoryBytes > 10<<20 {
		t.Errorf("usage %+v, %v", u, err)
	}
	if err := g.Kill(t.Context()); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("the process lives")
	}
	if err := g.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	for _, dir := range g.dirs() {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
}
