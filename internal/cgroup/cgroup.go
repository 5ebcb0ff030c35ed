// Package cgroup bounds and counts what a machine uses of its host, and ends
// what is in it, by control groups of Linux: version 2 where the node may use
// its controllers, else version 1. What the versions call differently is in one
// table for each (dialect.go).
//
// A machine's group is nex/ID below the group that the node itself is in. In it
// are agent, for the agent, and work, for the service it runs, which has the
// limits. A [Root] and a [Group] are safe for concurrent use. The package
// removes no group but those it is given the id of, and decides no limits.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"nex"
)

// Kind says by what services are limited on a host.
type Kind string

// The kinds.
const (
	V2      Kind = "cgroup2"
	V1      Kind = "cgroup1"
	Rlimits Kind = "rlimits" // no cgroups: there are limits of one process alone
	Guest   Kind = "guest"   // the kernel of the service's own microVM, which does as version 2 does
)

const (
	// top is the directory of all groups, below the node's own group.
	top = "nex"
	// agent and work are the groups in the group of a machine.
	agent, work = "agent", "work"
	// look is the first time between looks at a group that is ending, and
	// lookAtMost the longest.
	look, lookAtMost = time.Millisecond, 20 * time.Millisecond
)

// Hits count how often the limits of a group were met since it was made.
type Hits struct {
	OOMKills  int64 // processes killed for want of memory
	PIDs      int64 // processes or threads that could not begin
	Throttled int64 // times that all processor time of 100 ms was used up
}

// Root is where the groups of a node are made. A nil Root is none.
type Root struct {
	dialect dialect
	dirs    map[string]string // the directory top by controller; with version 2 the same for all
	mounts  map[string]string // the directory of all groups by controller, likewise
}

// Kind says by what services are limited with this root.
func (r *Root) Kind() Kind {
	if r == nil {
		return Rlimits
	}
	return r.dialect.kind
}

// hierarchies are the directories of the root, each once.
func (r *Root) hierarchies() []string {
	var dirs []string
	for _, c := range r.dialect.controllers {
		if !slices.Contains(dirs, r.dirs[c]) {
			dirs = append(dirs, r.dirs[c])
		}
	}
	return dirs
}

// Make makes the group of a machine. An error leaves nothing behind.
func (r *Root) Make(id string) (*Group, error) {
	if id != filepath.Base(id) || id == "." || id == ".." {
		return nil, fmt.Errorf("make cgroup: %q is no name", id)
	}
	g := &Group{root: r, id: id}
	if err := g.make(); err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("make cgroup: %w", err), g.Remove(ctx))
	}
	return g, nil
}

// Close removes the directories that hold the groups, unless another node has
// groups there.
func (r *Root) Close() {
	if r == nil {
		return
	}
	for _, dir := range r.hierarchies() {
		_ = os.Remove(dir) // see above
	}
}

// Group is the group of one machine.
type Group struct {
	root *Root
	id   string
}

// dirs are the directories of the group, one in each hierarchy.
func (g *Group) dirs() []string {
	dirs := g.root.hierarchies()
	for i := range dirs {
		dirs[i] = filepath.Join(dirs[i], g.id)
	}
	return dirs
}

// file is a file of one of the two groups.
func (g *Group) file(controller, group, name string) string {
	return filepath.Join(g.root.dirs[controller], g.id, group, name)
}

func (g *Group) make() error {
	for _, dir := range g.dirs() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if d := g.root.dialect; d.delegate != "" {
			for _, above := range []string{filepath.Dir(dir), dir} {
				if err := write(filepath.Join(above, d.delegate), d.controllersOn()); err != nil {
					return err
				}
			}
		}
		for _, child := range []string{agent, work} {
			if err := os.Mkdir(filepath.Join(dir, child), 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// Add puts a process, with what it starts from now on, into the part of the
// group that has no limits.
func (g *Group) Add(pid int) error { return g.add(pid, agent) }

// AddLimited puts a process, with what it starts from now on, into the part that
// has limits: one that is itself what is to be limited, as a VMM is.
func (g *Group) AddLimited(pid int) error { return g.add(pid, work) }

func (g *Group) add(pid int, part string) error {
	for _, dir := range g.dirs() {
		if err := write(filepath.Join(dir, part, procs), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("put process %d into cgroup: %w", pid, err)
		}
	}
	return nil
}

// Work opens the doors of the part that has limits: a process that writes "0"
// to each of the files moves there, if whoever opened them could have moved it.
// Reading them lists what is inside. The caller closes them.
func (g *Group) Work() ([]*os.File, error) {
	var doors []*os.File
	for _, dir := range g.dirs() {
		f, err := os.OpenFile(filepath.Join(dir, work, procs), os.O_RDWR, 0)
		if err != nil {
			CloseAll(doors)
			return nil, fmt.Errorf("open cgroup: %w", err)
		}
		doors = append(doors, f)
	}
	return doors, nil
}

// CloseAll closes what [Group.Work] opened.
func CloseAll(doors []*os.File) {
	for _, f := range doors {
		_ = f.Close() // nothing was written
	}
}

// Limit bounds what is in the limited part from now on, as far as r says.
func (g *Group) Limit(r nex.Resources) error {
	for _, s := range g.root.dialect.settings(r) {
		err := write(g.file(s.controller, work, s.file), s.value)
		if err != nil && (!s.optional || !errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("set limit: %w", err)
		}
	}
	return nil
}

// Usage tells what services use here: of memory without the page cache that
// may be reclaimed, of processes also their threads.
func (g *Group) Usage() (nex.Usage, error) {
	var n [4]int64
	for i, r := range g.root.dialect.usage {
		var err error
		if n[i], err = g.read(work, r); err != nil {
			return nex.Usage{}, fmt.Errorf("read usage: %w", err)
		}
	}
	return nex.Usage{CPUMS: time.Duration(n[0]).Milliseconds(), MemoryBytes: max(n[1]-n[2], 0), PIDs: int(n[3])}, nil
}

// Hits tells how often the limits were met.
func (g *Group) Hits() (Hits, error) {
	var n [3]int64
	for i, r := range g.root.dialect.hits {
		var err error
		if n[i], err = g.read(work, r); err != nil {
			return Hits{}, fmt.Errorf("read limits: %w", err)
		}
	}
	return Hits{OOMKills: n[0], PIDs: n[1], Throttled: n[2]}, nil
}

// read returns a number that the kernel tells: of a line that begins with a
// field's name, or the only one in a file.
func (g *Group) read(part string, r reading) (int64, error) {
	path := g.file(r.controller, part, r.file)
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		words := strings.Fields(line)
		if r.field != "" {
			if len(words) == 0 || words[0] != r.field {
				continue
			}
			words = words[1:]
		}
		if len(words) != 1 {
			break
		}
		n, err := strconv.ParseInt(words[0], 10, 64)
		return n * max(r.times, 1), err
	}
	return 0, fmt.Errorf("%s does not tell %s", path, r.field)
}

// write sets a file of the kernel, which must be there.
func write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
