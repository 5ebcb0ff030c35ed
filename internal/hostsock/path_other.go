//go:build !linux

package hostsock

import "fmt"

// shorten returns path if a socket can have it.
func shorten(path string) (name string, release func(), err error) {
	if len(path) > maxPath {
		return "", nil, fmt.Errorf("a socket's path has at most %d bytes, not %d; let the node's state_dir be shorter: %s", maxPath, len(path), path)
	}
	return path, func() {}, nil
}
