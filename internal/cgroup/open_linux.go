package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// home is the group that the node itself moves to, with version 2: there no
// group may have both processes and groups with controllers.
const home = "node"

// Open finds out which version this process may make groups with, below the
// group it is in. With version 2 it may move to a group of its own for that.
// Without any the Root is nil and the error says why: that is no failure.
func Open() (*Root, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	return open(string(mounts), string(groups))
}

func open(mounts, groups string) (*Root, error) {
	all := hierarchiesIn(mounts, groups)
	r, err2 := open2(all)
	if err2 == nil {
		return r, nil
	}
	r, err1 := open1(all)
	if err1 == nil {
		return r, nil
	}
	return nil, fmt.Errorf("no cgroups: version 2: %w; version 1: %w", err2, err1)
}

// hierarchy is a tree of groups as it is mounted.
type hierarchy struct {
	v2          bool
	controllers []string // with version 1
	dir         string   // of the group of this process
	mount       string   // of all groups that can be seen
}

// hierarchiesIn reads what the kernel says of mounts ("36 35 98:0 ROOT POINT
// OPTIONS … - TYPE SOURCE OPTIONS") and of this process's groups
// ("4:memory:PATH", with version 2 "0::PATH").
func hierarchiesIn(mounts, groups string) (all []hierarchy) {
	for line := range strings.Lines(mounts) {
		mount, system, ok := strings.Cut(strings.TrimSpace(line), " - ")
		where, what := strings.Fields(mount), strings.Fields(system)
		if !ok || len(where) < 5 || len(what) < 3 || what[0] != "cgroup" && what[0] != "cgroup2" {
			continue
		}
		h := hierarchy{v2: what[0] == "cgroup2"}
		options := strings.Split(what[2], ",")
		for line := range strings.Lines(groups) {
			part := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if len(part) < 3 {
				continue
			}
			names := strings.Split(part[1], ",")
			if h.v2 != (part[0] == "0" && part[1] == "") || !h.v2 && !slices.Contains(options, names[0]) {
				continue
			}
			below, err := filepath.Rel(unescape(where[3]), part[2])
			if err != nil || below == ".." || strings.HasPrefix(below, "../") {
				continue // the group is outside of what is mounted here
			}
			h.mount = unescape(where[4])
			h.controllers, h.dir = names, filepath.Join(h.mount, below)
			all = append(all, h)
		}
	}
	return all
}

// unescape undoes how the kernel writes blanks in paths, as "\040".
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

// open1 takes version 1, if all of its controllers are mounted and may be used.
func open1(all []hierarchy) (*Root, error) {
	r := &Root{dialect: version1, dirs: map[string]string{}, mounts: map[string]string{}}
	for _, c := range version1.controllers {
		i := slices.IndexFunc(all, func(h hierarchy) bool { return slices.Contains(h.controllers, c) })
		if i < 0 {
			return nil, fmt.Errorf("controller %s is not mounted", c)
		}
		r.dirs[c], r.mounts[c] = filepath.Join(all[i].dir, top), all[i].mount
	}
	return r, r.try()
}

// open2 takes version 2, if its controllers may be used below the group of this
// process.
func open2(all []hierarchy) (*Root, error) {
	i := slices.IndexFunc(all, func(h hierarchy) bool { return h.v2 })
	if i < 0 {
		return nil, errors.New("it is not mounted")
	}
	dir := all[i].dir
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	for _, c := range version2.controllers {
		if !slices.Contains(strings.Fields(string(have)), c) {
			return nil, fmt.Errorf("%s has no controller %s", dir, c)
		}
	}
	if dir, err = makeRoom(dir); err != nil {
		return nil, err
	}
	if err := write(filepath.Join(dir, version2.delegate), version2.controllersOn()); err != nil {
		return nil, err
	}
	r := &Root{dialect: version2, dirs: map[string]string{}, mounts: map[string]string{}}
	for _, c := range version2.controllers {
		r.dirs[c], r.mounts[c] = filepath.Join(dir, top), all[i].mount
	}
	return r, r.try()
}

// makeRoom returns the directory of a group that may have groups below it with
// controllers: this process's own, if it is the root of all or if this process
// is alone in it and can move on; or the one above, if it has moved already.
func makeRoom(dir string) (string, error) {
	if filepath.Base(dir) == home {
		return filepath.Dir(dir), nil
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.type")); errors.Is(err, fs.ErrNotExist) {
		return dir, nil // only the root of all does not have it
	}
	inside, err := os.ReadFile(filepath.Join(dir, procs))
	if err != nil {
		return "", err
	}
	self := strconv.Itoa(os.Getpid())
	if pids := strings.Fields(string(inside)); len(pids) > 1 || len(pids) == 1 && pids[0] != self {
		return "", fmt.Errorf("other processes are in the node's group %s, too: run it as a service of its own", dir)
	}
	own := filepath.Join(dir, home)
	if err := os.Mkdir(own, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return dir, write(filepath.Join(own, procs), self)
}

// try makes the directory of all groups, in each hierarchy. One that is there may be
// that of a node of another user.
func (r *Root) try() error {
	for _, dir := range r.hierarchies() {
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			err = unix.Access(dir, unix.W_OK)
		}
		if err != nil {
			r.Close()
			return fmt.Errorf("make groups in %s: %w", dir, err)
		}
	}
	return nil
}
