//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"nex"
)

// memory notes how much the node and its agents have.
func (s *stage) memory(r *report, when string) {
	r.RSS["node_"+when] = rss(s.nodes.Process.Pid)
	r.RSS["agents_"+when] = s.agents()
}

// agents is the memory of all children of the node together, in KiB.
func (s *stage) agents() (total int) {
	for _, pid := range children(s.nodes.Process.Pid) {
		total += rss(pid)
	}
	return total
}

// busy is the processor time that the processes of a target have used.
func (s *stage) busy(t target) (total time.Duration) {
	if t.name == rawTarget {
		return cpu(s.floor.Process.Pid)
	}
	for _, pid := range append(children(s.nodes.Process.Pid), s.nodes.Process.Pid) {
		total += cpu(pid)
		for _, pid := range children(pid) { // services
			total += cpu(pid)
		}
	}
	return total
}

// children are the process ids of a process's children.
func children(parent int) (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range all {
		if f := statFields(path); len(f) > 1 && f[1] == strconv.Itoa(parent) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// statFields are the fields of /proc/PID/stat behind the name of the program.
func statFields(path string) []string {
	stat, err := os.ReadFile(path)
	if err != nil {
		return nil // it is gone
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.Fields(rest)
}

// cpu is the time that a process has been running, on all processors.
func cpu(pid int) time.Duration {
	const ticks = 100 // a second, on every Linux
	f := statFields(fmt.Sprintf("/proc/%d/stat", pid))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * time.Second / ticks
}

// rss is the memory of a process that is in RAM, in KiB.
func rss(pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kib
		}
	}
	return 0
}

// idle deploys many functions of each kind, calls each once, and notes what
// one costs in memory, node and agents together.
func (s *stage) idle(ctx context.Context, r *report, o options, targets []target) error {
	for _, t := range targets {
		var engine nex.Settings
		switch t.name {
		case "js":
			engine.Engine = nex.EngineV8
		case "js-quickjs":
			engine.Engine = nex.EngineQuickJS
		default:
			continue
		}
		r.Idle[t.name] = map[string]int{}
		for _, n := range o.functions {
			per, err := s.idleFunctions(ctx, t.name, engine, n)
			if err != nil {
				return err
			}
			r.Idle[t.name][strconv.Itoa(n)] = per
		}
	}
	return nil
}

func (s *stage) idleFunctions(ctx context.Context, name string, engine nex.Settings, n int) (int, error) {
	w, err := s.upload(ctx, "idle", []byte(script))
	if err != nil {
		return 0, err
	}
	w.Type, w.Settings = nex.V8, engine
	ids := map[string]string{}
	before := rss(s.nodes.Process.Pid) + s.agents()
	for i := range n {
		w.Name = fmt.Sprintf("%s-%d", name, i)
		subject := "bench.idle." + w.Name
		w.TriggerSubjects = []string{subject}
		id, err := s.deploy(ctx, w)
		if err != nil {
			return 0, err
		}
		ids[w.Name] = id
		if err := s.firstReply(ctx, target{w.Name, subject}); err != nil {
			return 0, err
		}
	}
	after := rss(s.nodes.Process.Pid) + s.agents()
	for name := range ids { // all of them at the same time
		if err := s.firstReply(ctx, target{name, "bench.idle." + name}); err != nil {
			return 0, err
		}
	}
	for name, id := range ids {
		if err := s.stop(ctx, name, id); err != nil {
			return 0, err
		}
	}
	return max(0, (after-before)/n), nil
}

// microseconds is d as reports show it.
func microseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
