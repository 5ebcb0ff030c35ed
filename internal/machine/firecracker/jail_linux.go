package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// recordFile is the name of a machine's record of what it has outside of its
// directory.
const recordFile = "jail.json"

// record is what a machine may have outside of its directory. It is written before
// anything of it is made.
type record struct {
	Root   string   `json:"root,omitempty"`    // the directory that the jailer works in, where that is elsewhere
	Mounts []string `json:"mounts,omitempty"`  // files that others are mounted on
	Groups []string `json:"cgroups,omitempty"` // directories of cgroups that the jailer makes
	// A process with a user of its own outlives a node that is killed.
	PID   int    `json:"pid,omitempty"`
	Start string `json:"start,omitempty"` // of the process, as /proc/PID/stat has it
}

// write replaces the record in a machine's directory.
func (r record) write(dir string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, recordFile)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return fmt.Errorf("record what the machine has: %w", err)
	}
	return os.Rename(path+".new", path)
}

// Sweep ends and removes what a machine of a node that was killed has outside of its
// directory dir, as far as its record says. Without a record there is nothing to do.
func Sweep(ctx context.Context, dir string) error {
	data, err := os.ReadFile(filepath.Join(dir, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("read %s of machine %s: %w", recordFile, filepath.Base(dir), err)
	}
	if err := r.kill(ctx); err != nil {
		return err
	}
	return r.remove(ctx)
}

const (
	// look is the first time between looks at something that is ending, and
	// lookAtMost the longest.
	look, lookAtMost = time.Millisecond, 50 * time.Millisecond
)

// until looks until there is nothing more to wait for, or ctx ends.
func until(ctx context.Context, done func() bool) error {
	pause := look
	t := time.NewTimer(pause)
	defer t.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			pause = min(2*pause, lookAtMost)
			t.Reset(pause)
		}
	}
	return nil
}

// kill kills the process, if it is still the one that was recorded.
func (r record) kill(ctx context.Context) error {
	if r.PID == 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(r.PID, 0) // from here on the number is that of one process
	if err != nil {
		return nil // it has ended
	}
	defer unix.Close(fd)
	if startOf(r.PID) != r.Start {
		return nil // it is another
	}
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // fails on one that has ended
	if err := until(ctx, func() bool { return startOf(r.PID) != r.Start }); err != nil {
		return fmt.Errorf("wait for the end of process %d: %w", r.PID, err)
	}
	return nil
}

// startOf tells when a process started, "" for one that does not run: see
// proc_pid_stat(5).
func startOf(pid int) string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return ""
	}
	return f[19]
}

// remove removes what was recorded, once no process uses it.
func (r record) remove(ctx context.Context) error {
	var errs []error
	for _, at := range r.Mounts {
		if err := unix.Unmount(at, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", at, err))
		}
	}
	for _, dir := range r.Groups {
		err := until(ctx, func() bool { e := os.Remove(dir); return e == nil || !errors.Is(e, unix.EBUSY) })
		if _, still := os.Lstat(dir); err == nil && still == nil {
			err = errors.New("it is still there")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
		}
		_ = os.Remove(filepath.Dir(dir)) // unless it is for other machines
	}
	if len(errs) == 0 && r.Root != "" { // nothing of others is mounted there now
		errs = append(errs, os.RemoveAll(r.Root))
	}
	return errors.Join(errs...)
}

// The users of machines in jails: numbers that systems give to nobody, nor to
// anybody's containers, and that are not those of the OS sandbox.
const (
	firstUser = 2_000_000_000
	users     = 1 << 26
)

// userOf is the number of a machine's user and group.
func userOf(id string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	return firstUser + int(h.Sum32()%users)
}

// bring makes a file of the host appear as name in a jail: by a hard link, or else, across
// file systems, by a mount that is recorded first. mode is what everybody must be
// allowed to do with it.
func (r *record) bring(dir, root, name, file string, mode fs.FileMode) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&mode != mode {
		return fmt.Errorf("%s is %v, but Firecracker has a user of its own in the jail: chmod o+r %s", file, info.Mode(), file)
	}
	at := filepath.Join(root, name)
	if file, err = filepath.EvalSymlinks(file); err != nil {
		return err
	}
	if os.Link(file, at) == nil {
		return nil
	}
	r.Mounts = append(r.Mounts, at)
	if err := r.write(dir); err != nil {
		return err
	}
	if err := os.WriteFile(at, nil, 0o400); err != nil {
		return err
	}
	if err := unix.Mount(file, at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s in the jail: %w", file, err)
	}
	if mode == 0 {
		return nil
	}
	return unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}
