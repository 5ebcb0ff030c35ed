package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/gofrs/flock"
)

const (
	// longestPid is how many bytes a pid file may have.
	longestPid = 32
	// pidFileTries bounds how often a pid file may vanish while it is taken.
	pidFileTries = 10
)

var (
	errVanished = errors.New("it is removed or replaced again and again")
	errNoPid    = errors.New(`it holds something else than a process id: choose another with "pid_filepath"`)
)

// pidFile holds the process id of a running node. That the node lives is told
// by the lock on the file, which ends with the process, and not by the id.
type pidFile struct {
	path string
	lock *flock.Flock
}

// writePid takes the pid file at path and writes this process's id into it.
// What a killed node left there is overwritten; links, and files that hold
// anything but a process id, are left alone. No path is no file, and nil.
func writePid(path string) (*pidFile, error) {
	if path == "" {
		return nil, nil
	}
	err := errVanished
	for n := 0; n < pidFileTries && errors.Is(err, errVanished); n++ {
		var p *pidFile
		if p, err = takePid(path); err == nil {
			return p, nil
		}
	}
	return nil, fmt.Errorf("pid file %s: %w", path, err)
}

func takePid(path string) (*pidFile, error) {
	// Exclusive creation follows no links, so that nothing is made elsewhere.
	created, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		err = created.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	switch info, err := os.Lstat(path); {
	case err != nil:
		return nil, vanished(err)
	case !info.Mode().IsRegular():
		return nil, errors.New(`it is no regular file: choose another with "pid_filepath"`)
	}
	p := &pidFile{path: path, lock: flock.New(path, flock.SetFlag(os.O_RDONLY))}
	locked, err := p.lock.TryLock()
	if err != nil {
		return nil, vanished(err)
	}
	if !locked {
		return nil, fmt.Errorf(`another nex node runs with it (process %s): stop that one or choose another file with "pid_filepath"`, pidIn(path))
	}
	if err := p.write(); err != nil {
		return nil, errors.Join(err, p.lock.Close())
	}
	return p, nil
}

// write puts the process id into the locked file.
func (p *pidFile) write() error {
	f, err := os.OpenFile(p.path, os.O_RDWR, 0)
	if err != nil {
		return vanished(err)
	}
	defer f.Close()
	// What was opened must be what was locked, and no link to it.
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !p.isLocked(info) || !p.isOurs() {
		return errVanished
	}
	if _, err := readPid(f); err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// isOurs reports whether the file at the path, links not followed, is the one
// that was locked.
func (p *pidFile) isOurs() bool {
	info, err := os.Lstat(p.path)
	return err == nil && p.isLocked(info)
}

func (p *pidFile) isLocked(info fs.FileInfo) bool {
	locked, err := p.lock.Stat()
	return err == nil && os.SameFile(info, locked)
}

// remove removes the file, unless another took its place.
func (p *pidFile) remove() error {
	if p == nil {
		return nil
	}
	var err error
	if p.isOurs() {
		err = os.Remove(p.path)
	}
	if err = errors.Join(err, p.lock.Close()); err != nil {
		return fmt.Errorf("remove pid file: %w", err)
	}
	return nil
}

// vanished tells a file that is gone, which is worth another try, from other
// errors.
func vanished(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errVanished
	}
	return err
}

// readPid returns the process id in a file, "" in one that is still empty.
func readPid(f io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(f, longestPid+1))
	if err != nil {
		return "", err
	}
	pid := strings.TrimSpace(string(data))
	if _, err := strconv.ParseUint(pid, 10, 64); len(data) > longestPid || err != nil && pid != "" {
		return "", errNoPid
	}
	return pid, nil
}

// pidIn is what a pid file says, for people to read.
func pidIn(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	pid, err := readPid(f)
	if err != nil || pid == "" {
		return "unknown"
	}
	return pid
}
