package node_test

import (
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/nextest"
)

// rogues runs services that behave badly beside a function that must not mind.
type rogues struct {
	*rig
	program []byte
	logs    chan nex.Log
	limits  string // by what the node limits services
}

func newRogues(t *testing.T) *rogues {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rogue")
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", file, "./testdata/rogue")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the service: %v\n%s", err, out)
	}
	r := &rogues{rig: newRig(t, settings(t)), program: must(os.ReadFile(file))(t), logs: make(chan nex.Log, 100_000)}
	r.limits = r.node.Tags[nex.TagLimits]
	sub, err := r.nc.Subscribe("$NEX.logs.>", func(m *nats.Msg) {
		if l, err := nex.ParseLog(m.Subject, m.Data); err == nil {
			select {
			case r.logs <- l:
			default:
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	r.mustDeployJS(t, "neighbour", "neighbour", echo)
	return r
}

// needGroups skips a test of what only cgroups can do.
func (r *rogues) needGroups(t *testing.T) {
	t.Helper()
	if r.limits == "rlimits" {
		t.Skip("this host gives the tests no cgroups")
	}
}

// run deploys the program in one of its modes.
func (r *rogues) run(t *testing.T, s nex.Settings, mode ...string) *rogue {
	t.Helper()
	w := r.upload(t, mode[0], nex.Native, r.program)
	w.Argv, w.Settings = mode, s
	reply, err := r.deploy(t, w)
	if err != nil {
		t.Fatal(err)
	}
	g := &rogue{rogues: r, name: mode[0], id: reply.ID}
	found, _ := filepath.Glob(filepath.Join(r.dir, "machines", "*", g.id))
	if len(found) == 1 {
		g.machine = filepath.Base(filepath.Dir(found[0]))
	}
	return g
}

// rogue is one such service.
type rogue struct {
	*rogues
	name, id, machine string
}

// hears waits for a line of its that begins with text.
func (g *rogue) hears(t *testing.T, text string) string {
	t.Helper()
	for {
		l := nextest.Await(t, g.logs, "a line from "+g.name)
		if l.ID == g.id && strings.HasPrefix(l.Text, text) {
			return l.Text
		}
	}
}

// processes are those that work in its directory.
func (g *rogue) processes(t *testing.T) (pids []int) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && strings.Contains(cwd, g.id) {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

// isGone checks that nothing of it is left: no process, no directory, no cgroup
// of its machine.
func (g *rogue) isGone(t *testing.T) {
	t.Helper()
	if pids := g.processes(t); len(pids) > 0 {
		t.Errorf("%s: processes left: %v", g.name, pids)
	}
	if g.machine == "" {
		return
	}
	if _, err := os.Stat(filepath.Join(g.dir, "machines", g.machine)); err == nil {
		t.Errorf("%s: the directory of its machine is left", g.name)
	}
	if left := groupsNamed(g.machine); len(left) > 0 {
		t.Errorf("%s: cgroups left: %v", g.name, left)
	}
}

// groupsNamed looks for cgroups of a machine.
func groupsNamed(machine string) (found []string) {
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || !d.IsDir():
			return nil
		case d.Name() == machine:
			found = append(found, path)
			return fs.SkipDir
		}
		return nil
	})
	return found
}

// ends waits until it has ended by itself and checks that nothing is left.
func (g *rogue) ends(t *testing.T) (e nex.WorkloadUndeployed) {
	t.Helper()
	for {
		event := g.await(t, e)
		if strings.HasSuffix(event.Source(), g.id) {
			if err := event.DataAs(&e); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	g.isGone(t)
	return e
}

// stops stops it and checks that nothing is left.
func (g *rogue) stops(t *testing.T) (took time.Duration) {
	t.Helper()
	began := time.Now()
	if err := g.stop(t, g.name, g.id); err != nil {
		t.Errorf("stop %s: %v", g.name, err)
	}
	took = time.Since(began)
	g.isGone(t)
	return took
}

// limit waits for the event that it met a limit.
func (g *rogue) limit(t *testing.T, cause string) {
	t.Helper()
	if e := next[nex.WorkloadLimitHit](t, g.rig); e.Name != g.name || e.Cause != cause || e.Message == "" {
		t.Errorf("limit hit %+v, want cause %s", e, cause)
	}
}

// neighbour calls the function again and again; the result says how long that
// took. Each call must be answered.
func (r *rogues) neighbour(t *testing.T) (done func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var took []time.Duration
	var wg sync.WaitGroup
	wg.Go(func() {
		pace := time.NewTicker(5 * time.Millisecond)
		defer pace.Stop()
		for ctx.Err() == nil {
			began := time.Now()
			if _, err := r.nc.Request("neighbour", []byte("x"), nextest.Patience); err != nil {
				t.Errorf("neighbour: %v", err)
				return
			}
			took = append(took, time.Since(began))
			select {
			case <-pace.C:
			case <-ctx.Done():
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
		slices.Sort(took)
		if n := len(took); n > 0 {
			t.Logf("neighbour: %d calls, half within %s, 99%% within %s, all within %s", n, took[n/2], took[n*99/100], took[n-1])
		}
	}
}

// short is how long the rogues may take to end.
var short = nex.Settings{StopGraceMS: 300}

func with(change func(*nex.Resources)) nex.Settings {
	s := short
	change(&s.Resources)
	return s
}

func TestRogues(t *testing.T) {
	r := newRogues(t)
	for _, c := range []struct {
		name   string
		groups bool // it needs cgroups
		test   func(t *testing.T)
	}{
		{"forks", false, func(t *testing.T) {
			g := r.run(t, short, "forks")
			g.hears(t, "ready")
			if n := len(g.processes(t)); n < 3 {
				t.Errorf("%d processes", n)
			}
			g.stops(t)
		}},
		{"double-forks into another session", false, func(t *testing.T) {
			g := r.run(t, short, "daemon")
			g.hears(t, "ready")
			g.stops(t)
		}},
		{"leaves a process in another session", false, func(t *testing.T) {
			g := r.run(t, short, "daemon", "and end")
			if e := g.ends(t); e.Code != 0 {
				t.Errorf("ended with %+v", e)
			}
		}},
		{"ignores SIGTERM", false, func(t *testing.T) {
			g := r.run(t, short, "stubborn")
			g.hears(t, "ready")
			if took := g.stops(t); took < 300*time.Millisecond {
				t.Errorf("it was killed after %s, before its time", took)
			}
		}},
		{"exits at once", false, func(t *testing.T) {
			if e := r.run(t, short, "exit", "7").ends(t); e.Code != 7 {
				t.Errorf("ended with %+v", e)
			}
		}},
		{"exits later", false, func(t *testing.T) {
			if e := r.run(t, short, "exit", "8", "1000").ends(t); e.Code != 8 {
				t.Errorf("ended with %+v", e)
			}
		}},
		{"fills its output", false, func(t *testing.T) {
			g := r.run(t, short, "flood")
			t.Log(g.hears(t, "a line"))
			for {
				l := nextest.Await(t, g.logs, "word of lines that were dropped")
				if strings.Contains(l.Text, "dropped") {
					t.Log(l.Text)
					break
				}
			}
			g.stops(t)
		}},
		{"opens files without end", false, func(t *testing.T) {
			g := r.run(t, with(func(r *nex.Resources) { r.Files = 40 }), "files")
			text := g.hears(t, "opened")
			var n int
			if n, _ = strconv.Atoi(strings.Fields(text)[1]); n >= 40 || n < 10 {
				t.Errorf("%s", text)
			}
			g.stops(t)
		}},
		{"fills its directory", false, func(t *testing.T) {
			g := r.run(t, with(func(r *nex.Resources) { r.DiskMiB = 64 }), "disk")
			g.limit(t, nex.CauseDisk)
			if e := g.ends(t); e.Code != -1 || !strings.Contains(e.Message, "disk") {
				t.Errorf("ended with %+v", e)
			}
		}},
		{"fills a file", false, func(t *testing.T) {
			g := r.run(t, with(func(r *nex.Resources) { r.DiskMiB = 8 }), "bigfile")
			g.hears(t, "write file: file too large") // Go ignores the signal
			g.stops(t)
			sh := *r
			sh.program = []byte("#!/bin/sh\nexec dd if=/dev/zero of=file bs=1000000\n")
			g = sh.run(t, with(func(r *nex.Resources) { r.DiskMiB = 8 }), "dd")
			g.limit(t, nex.CauseDisk)
			if e := g.ends(t); e.Code != -1 || !strings.Contains(e.Message, nex.CauseDisk) {
				t.Errorf("ended with %+v", e)
			}
		}},
		{"wants all memory", true, func(t *testing.T) {
			g := r.run(t, with(func(r *nex.Resources) { r.MemoryMiB = 64 }), "hog")
			g.limit(t, nex.CauseOOM)
			if e := g.ends(t); e.Code != -1 || !strings.Contains(e.Message, nex.CauseOOM) {
				t.Errorf("ended with %+v", e)
			}
		}},
		{"wants all processes", true, func(t *testing.T) {
			g := r.run(t, with(func(r *nex.Resources) { r.PIDs = 40 }), "processes")
			g.hears(t, "refused")
			g.limit(t, nex.CausePIDs)
			g.stops(t)
		}},
		{"is a fork bomb", true, func(t *testing.T) {
			g := r.run(t, with(func(r *nex.Resources) { r.PIDs = 60 }), "bomb")
			g.limit(t, nex.CausePIDs)
			g.stops(t)
		}},
		{"wants all processors", true, func(t *testing.T) {
			g := r.run(t, with(func(r *nex.Resources) { r.CPUs = 0.2 }), "busy")
			g.hears(t, "ready")
			began := time.Now()
			<-time.After(time.Second)
			var ticks int
			for _, pid := range g.processes(t) {
				stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
				f := strings.Fields(string(stat)[strings.LastIndexByte(string(stat), ')')+1:])
				n, _ := strconv.Atoi(f[11])
				ticks += n
			}
			if share := float64(ticks) / 100 / time.Since(began).Seconds(); share > 0.4 {
				t.Errorf("it used %.2f processors of 0.2", share)
			}
			g.stops(t)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.groups {
				r.needGroups(t)
			}
			done := r.neighbour(t)
			c.test(t)
			done()
		})
	}
}

// TestServiceGetsNoFiles of its agent but its standard ones.
func TestServiceGetsNoFiles(t *testing.T) {
	r := newRogues(t)
	g := r.run(t, short, "descriptors")
	if text := g.hears(t, "["); text != "[0 1 2]" {
		t.Errorf("its files are %s", text)
	}
	g.ends(t)
}
