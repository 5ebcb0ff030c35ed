package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/gofrs/flock"
)

// tempPrefix begins the names of this program's temporary directories. Each
// holds a lock for as long as the process that made it lives.
const tempPrefix = "nex-temp-"

// process is what must be undone when the process ends, however it does.
type process struct {
	mu   sync.Mutex
	temp []string // directories
}

// tempDir makes a temporary directory, and removes those of processes that
// were killed before they could.
func (p *process) tempDir() (dir string, remove func() error, err error) {
	sweepTemp()
	dir, err = os.MkdirTemp("", tempPrefix+"*")
	if err != nil {
		return "", nil, fmt.Errorf("make temporary directory: %w", err)
	}
	lock := flock.New(filepath.Join(dir, "alive"), flock.SetPermissions(0o600))
	if _, err := lock.TryLock(); err != nil {
		return "", nil, errors.Join(fmt.Errorf("lock temporary directory: %w", err), os.RemoveAll(dir))
	}
	p.mu.Lock()
	p.temp = append(p.temp, dir)
	p.mu.Unlock()
	return dir, func() error { return errors.Join(os.RemoveAll(dir), lock.Close()) }, nil
}

// removeTemp removes all temporary directories at once, while others may
// still write into them.
func (p *process) removeTemp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, dir := range p.temp {
		for range 10 {
			if os.RemoveAll(dir) == nil {
				break
			}
		}
	}
}

// sweepTemp removes temporary directories whose process is gone. It is a
// courtesy: what cannot be removed stays.
func sweepTemp() {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), tempPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, "alive")
		if _, err := os.Stat(path); err != nil {
			continue // being made
		}
		lock := flock.New(path)
		if locked, err := lock.TryLock(); err == nil && locked {
			_ = os.RemoveAll(dir)
		}
		_ = lock.Close()
	}
}
