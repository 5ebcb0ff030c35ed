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
)

// Kill kills all that is in the group, again and again until nothing is, or ctx
// ends. Nothing can begin in the group from then on.
func (g *Group) Kill(ctx context.Context) error {
	// Whoever forks faster than it is killed cannot fork any more.
	if g.root.dirs["pids"] != "" {
		_ = write(g.file("pids", "", "pids.max"), "0") // the group may be gone
	}
	for wait := look; ; wait = min(2*wait, lookAtMost) {
		if g.root.dialect.killAll != "" {
			for _, dir := range g.dirs() {
				_ = write(filepath.Join(dir, g.root.dialect.killAll), "1") // kernels before 5.14 do not have it
			}
		}
		pids := g.processes()
		for _, pid := range pids {
			kill(pid)
		}
		if len(pids) == 0 {
			return nil
		}
		if !pause(ctx, wait) {
			return fmt.Errorf("kill cgroup %s: processes %v are still there: %w", g.id, pids, ctx.Err())
		}
	}
}

// processes lists what is in the group, in any hierarchy, and in the groups that
// its processes may have made in it. This process is never among them.
func (g *Group) processes() (pids []int) {
	for _, dir := range g.tree() {
		data, err := os.ReadFile(filepath.Join(dir, procs))
		if err != nil {
			continue // the group is gone
		}
		for word := range strings.FieldsSeq(string(data)) {
			// 0 is a process that cannot be seen from here.
			if pid, err := strconv.Atoi(word); err == nil && pid > 1 && pid != os.Getpid() && !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// tree lists all directories of the group, those inside others first.
func (g *Group) tree() (dirs []string) {
	for _, dir := range g.dirs() {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil // what is gone needs no removal
		})
	}
	slices.Reverse(dirs)
	return dirs
}

// Remove removes the group, which must be empty, as soon as the kernel lets go
// of it or ctx ends. It is no error if there is none.
func (g *Group) Remove(ctx context.Context) error {
	for wait := look; ; wait = min(2*wait, lookAtMost) {
		var errs []error
		for _, dir := range g.tree() {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		if len(errs) == 0 {
			return nil
		}
		if !pause(ctx, wait) {
			return fmt.Errorf("remove cgroup %s: %w", g.id, errors.Join(errs...))
		}
	}
}

// pause reports whether ctx lasted.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
