package hostsock

import (
	"fmt"
	"os"
	"path/filepath"
)

// shorten returns a name for path that a socket can have. This process's file
// descriptors are directories in /proc to every process of the same user; an
// open one gives a long directory a short name until release.
func shorten(path string) (name string, release func(), err error) {
	if len(path) <= maxPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	name = fmt.Sprintf("/proc/%d/fd/%d/%s", os.Getpid(), dir.Fd(), filepath.Base(path))
	if len(name) > maxPath {
		_ = dir.Close() // it was only read
		return "", nil, fmt.Errorf("a socket's name has at most %d bytes, not %d: %s", maxPath, len(name), name)
	}
	return name, func() { _ = dir.Close() }, nil
}
