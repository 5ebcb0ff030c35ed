package leaks

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/rs/xid"
	"golang.org/x/sys/unix"
)

// stock is what there is at one time.
type stock struct {
	files map[string]string // what each file descriptor is
}

// takeStock notes what there is before the tests.
func takeStock() (stock, error) {
	r, w, err := os.Pipe() // the runtime opens descriptors of its own with the first of this kind
	if err != nil {
		return stock{}, err
	}
	_, _ = r.Close(), w.Close() // nothing was written
	files, err := descriptors()
	return stock{files}, err
}

// left says what has come since and is still there. dir has the tests' temporary
// files; processes are known by it when their parent is gone.
func (s *stock) left(dir string) (left []string) {
	now, err := descriptors()
	if err != nil {
		return []string{err.Error()}
	}
	for _, fd := range slices.Sorted(maps.Keys(now)) {
		if s.files[fd] != now[fd] {
			left = append(left, fmt.Sprintf("file descriptor %s: %s", fd, now[fd]))
		}
	}
	for _, p := range processes(dir) {
		left = append(left, "process "+p)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return append(left, err.Error())
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 1 && within(fields[1], dir) {
			left = append(left, "the mount "+fields[1])
		}
	}
	return append(left, groups()...)
}

// descriptors lists the open files of this process.
func descriptors() (map[string]string, error) {
	const dir = "/proc/self/fd"
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list open files: %w", err)
	}
	files := map[string]string{}
	for _, e := range list {
		what, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // that was the list itself
		}
		if strings.HasPrefix(what, "socket:") {
			what += addresses(e.Name())
		}
		files[e.Name()] = what
	}
	return files, nil
}

// addresses says between whom a socket is.
func addresses(name string) (text string) {
	fd, err := strconv.Atoi(name)
	if err != nil {
		return ""
	}
	for _, ask := range []func(int) (unix.Sockaddr, error){unix.Getsockname, unix.Getpeername} {
		addr, err := ask(fd)
		if err != nil {
			continue // it has none
		}
		switch a := addr.(type) {
		case *unix.SockaddrInet4:
			text += fmt.Sprintf(" port %d", a.Port)
		case *unix.SockaddrInet6:
			text += fmt.Sprintf(" port %d", a.Port)
		case *unix.SockaddrUnix:
			text += fmt.Sprintf(" %q", a.Name)
		}
	}
	return text
}

// processes lists the children of this process, with those that have ended and
// were not waited for, and whoever has to do with dir.
func processes(dir string) (left []string) {
	list, _ := filepath.Glob("/proc/[0-9]*") // the pattern is fine
	for _, proc := range list {
		pid, err := strconv.Atoi(filepath.Base(proc))
		if err != nil || pid == os.Getpid() {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(proc, "stat"))
		if err != nil {
			continue // it has just gone
		}
		after := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])) // behind the name: state, parent
		if len(after) < 2 || after[1] != strconv.Itoa(os.Getpid()) && !inside(proc, dir) {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(proc, "cmdline")) // empty when it has ended
		name := strings.TrimSpace(string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		left = append(left, fmt.Sprintf("%d, %q in state %s, parent %s", pid, name, after[0], after[1]))
	}
	return left
}

// inside reports whether a process runs a program in dir, has its directory there,
// or was told of it. The directory may have been removed.
func inside(proc, dir string) bool {
	for _, link := range []string{"exe", "cwd", "root"} {
		if to, err := os.Readlink(filepath.Join(proc, link)); err == nil && within(to, dir) {
			return true
		}
	}
	for _, file := range []string{"cmdline", "environ"} {
		if text, err := os.ReadFile(filepath.Join(proc, file)); err == nil && bytes.Contains(text, []byte(dir)) {
			return true
		}
	}
	return false
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// groups lists the control groups of machines that this process named. They are all
// below one group, also those of other tests that run at the same time; but a
// machine's id says what process it is from.
func groups() (left []string) {
	own := xid.New().Pid()
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || filepath.Base(filepath.Dir(path)) != "nex" {
			return nil // what has gone is not there
		}
		if id, err := xid.FromString(d.Name()); err == nil && id.Pid() == own {
			left = append(left, "the control group "+path)
		}
		return fs.SkipDir
	})
	return left
}
