package machine

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// maxCache is how many bytes all tenants' caches of compiled code may have
// together when a machine starts. Agents bound their own tenant's.
const maxCache = 1 << 30

// tidyCache removes the caches of the tenants that had nothing compiled for
// longest. Losing one costs a compilation.
func (p *Processes) tidyCache() {
	if err := trimCache(p.Cache, maxCache); err != nil {
		p.Log.Warn("Cache of compiled code cannot be tidied", "error", err)
	}
}

func trimCache(dir string, limit int64) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	type tenant struct {
		dir  string
		used time.Time
		size int64
	}
	var all []tenant
	var total int64
	for _, d := range list {
		t := tenant{dir: filepath.Join(dir, d.Name())}
		// What an agent removes meanwhile counts for nothing.
		_ = filepath.WalkDir(t.dir, func(_ string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil
			}
			if info, err := d.Info(); err == nil && !d.IsDir() {
				t.size += info.Size()
				if info.ModTime().After(t.used) {
					t.used = info.ModTime()
				}
			}
			return nil
		})
		all = append(all, t)
		total += t.size
	}
	slices.SortFunc(all, func(a, b tenant) int { return a.used.Compare(b.used) })
	for len(all) > 0 && total > limit {
		if err := os.RemoveAll(all[0].dir); err != nil {
			return err
		}
		total -= all[0].size
		all = all[1:]
	}
	return nil
}
