package cgroup

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
)

// Sweep ends and removes the groups of machines that a node which was killed may
// have left, wherever that node was: whoever starts one again by hand is seldom
// in the group of the first. It is no error if there are none.
func (r *Root) Sweep(ctx context.Context, ids ...string) error {
	if r == nil || len(ids) == 0 {
		return nil
	}
	var errs []error
	done := map[string]bool{}
	for _, mount := range r.mounts {
		if done[mount] {
			continue
		}
		done[mount] = true
		for _, g := range r.left(mount, ids) {
			err := g.Kill(ctx)
			if err == nil {
				err = g.Remove(ctx)
			}
			g.root.Close() // those here that hold groups are made again when they are needed
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// left finds groups of machines below a mount. Each is only the part of the
// group that is there.
func (r *Root) left(mount string, ids []string) (found []*Group) {
	part := r.dialect
	part.controllers = slices.DeleteFunc(slices.Clone(part.controllers), func(c string) bool { return r.mounts[c] != mount })
	_ = filepath.WalkDir(mount, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || filepath.Base(filepath.Dir(path)) != top || !slices.Contains(ids, d.Name()) {
			return nil // what is gone, or is not for us to look into, is not ours
		}
		place := &Root{dialect: part, dirs: map[string]string{}}
		for _, c := range part.controllers {
			place.dirs[c] = filepath.Dir(path)
		}
		found = append(found, &Group{root: place, id: d.Name()})
		return fs.SkipDir
	})
	return found
}
