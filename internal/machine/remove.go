package machine

import (
	"io/fs"
	"os"
	"path/filepath"
)

// RemoveAll is [os.RemoveAll] for files of a workload, which may have closed its
// directories to its own user.
func RemoveAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	// On the way down each is opened before it is read. What stays closed is what
	// the second attempt reports.
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}
