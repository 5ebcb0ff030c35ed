package firecracker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nex/internal/machine/microvm"
)

// recordFile is the name of a machine's record of what it has outside of its
// directory, in the directory of its records.
const recordFile = "jail.json"

// record is what a machine may have outside of its directory. It is written before
// anything of it is made.
type record struct {
	Root   string   `json:"root,omitempty"`    // the directory that the jailer works in, where that is elsewhere
	Mounts []string `json:"mounts,omitempty"`  // files that others are mounted on
	Groups []string `json:"cgroups,omitempty"` // directories of cgroups that the jailer makes
	// A process with a user of its own outlives a node that is killed. It is known by its root
	// directory from before it starts, and by its number once that is known.
	Jail  string `json:"jail,omitempty"` // that directory
	PID   int    `json:"pid,omitempty"`
	Start string `json:"start,omitempty"` // of the process, as /proc/PID/stat has it
	Boot  string `json:"boot,omitempty"`  // of the host, which counts both anew each time
}

// write replaces the record in the directory for those of a machine.
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
// directory, as far as its record in dir says, and the record. Without one there is nothing to do.
func Sweep(ctx context.Context, dir string) error {
	r, err := readRecord(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s of machine %s: %w", recordFile, filepath.Base(dir), err)
	}
	if err := errors.Join(r.kill(ctx), r.killJailed(ctx)); err != nil {
		return err
	}
	return r.remove(ctx, dir)
}

// maxRecord bounds the size of a record, in bytes.
const maxRecord = 64 << 10

// readRecord reads the record in dir, if it is one that this user wrote for the machine
// that dir is named after.
func readRecord(dir string) (r record, err error) {
	f, err := os.OpenFile(filepath.Join(dir, recordFile), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return r, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return r, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 || info.Size() > maxRecord || int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
		return r, fmt.Errorf("it is no file that only this user may write, of %d bytes at most", maxRecord)
	}
	if err := json.NewDecoder(io.LimitReader(f, maxRecord)).Decode(&r); err != nil {
		return r, err
	}
	if !r.isOf(filepath.Base(dir)) {
		return r, errors.New("it names files that are not the machine's")
	}
	return r, nil
}

// isOf reports whether all that a record names is at paths that machine id has.
func (r record) isOf(id string) bool {
	is := func(path string, last ...string) bool {
		return filepath.IsAbs(path) && filepath.Clean(path) == path && strings.HasSuffix(path, "/"+filepath.Join(last...))
	}
	for _, at := range r.Mounts {
		if !is(at, id, "root", filepath.Base(at)) {
			return false
		}
	}
	for _, group := range r.Groups {
		if !is(group, parentGroup, id) {
			return false
		}
	}
	return (r.Root == "" || is(r.Root, id)) && (r.Jail == "" || is(r.Jail, id, "root"))
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
	if r.PID == 0 || r.Boot != bootID() {
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

// killJailed kills all processes whose root directory is the machine's.
func (r record) killJailed(ctx context.Context) error {
	jail, err := os.Lstat(r.Jail)
	if err != nil {
		return nil // there is none
	}
	left := func() (found bool) {
		entries, err := os.ReadDir("/proc")
		if err != nil {
			return true
		}
		for _, e := range entries {
			if pid, err := strconv.Atoi(e.Name()); err == nil && killIn(jail, pid) {
				found = true
			}
		}
		return found
	}
	if err := until(ctx, func() bool { return !left() }); err != nil {
		return fmt.Errorf("wait for the end of what runs in %s: %w", r.Jail, err)
	}
	return nil
}

// killIn kills a process if its root directory is jail, and reports whether it was.
func killIn(jail fs.FileInfo, pid int) bool {
	fd, err := unix.PidfdOpen(pid, 0) // from here on the number is that of one process
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	root, err := os.Stat("/proc/" + strconv.Itoa(pid) + "/root")
	if err != nil || !os.SameFile(root, jail) { // one that has ended has none
		return false
	}
	_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) // fails on one that has ended
	return true
}

// bootID tells one start of the host from others.
func bootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
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

// remove removes what was recorded, once no process uses it, and the record in dir.
func (r record) remove(ctx context.Context, dir string) error {
	var errs []error
	for _, at := range r.Mounts {
		if err := unix.Unmount(at, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", at, err))
		}
	}
	for _, group := range r.Groups {
		err := until(ctx, func() bool { e := os.Remove(group); return e == nil || !errors.Is(e, unix.EBUSY) })
		if _, still := os.Lstat(group); err == nil && still == nil {
			err = errors.New("it is still there")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", group, err))
		}
		_ = os.Remove(filepath.Dir(group)) // unless it is for other machines
	}
	if len(errs) == 0 && r.Root != "" { // nothing of others is mounted there now
		errs = append(errs, os.RemoveAll(r.Root))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, recordFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// mayWrite reports whether a user may change a file, or give himself the right to.
func mayWrite(info fs.FileInfo, uid, gid int) bool {
	st := info.Sys().(*syscall.Stat_t)
	return int(st.Uid) == uid || int(st.Gid) == gid && info.Mode()&0o020 != 0 || info.Mode()&0o002 != 0
}

// showable says why a file of the host cannot appear in the jail of a user; see
// [record.bring].
func showable(file string, mode fs.FileMode, uid, gid int) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if mode != 0 && mayWrite(info, uid, gid) {
		return fmt.Errorf("%s could be changed by user %d, who Firecracker is in the jail, for all machines: chown root %s, and chmod go-w", file, uid, file)
	}
	if info.Mode().Perm()&mode != mode {
		return fmt.Errorf("%s is %v, but Firecracker has a user of its own in the jail: chmod o+r %s", file, info.Mode(), file)
	}
	return nil
}

// CheckFile says why a file of an image cannot appear in the jails of machines.
func (j *Jail) CheckFile(path string) error {
	user := microvm.UserOf("") // any of those that machines get
	return showable(path, imageMode, cmp.Or(j.UID, user), cmp.Or(j.GID, user))
}

// imageMode is what everybody must be allowed to do with the files of an image.
const imageMode = 0o004

// bring makes a file of the host appear as name in a jail: by a hard link, or else, across
// file systems, by a mount that is recorded first. mode is what everybody must be
// allowed to do with it; the user of the jail, uid and gid, must not be able to change such a file.
func (r *record) bring(dir, root, name, file string, mode fs.FileMode, uid, gid int) error {
	err := showable(file, mode, uid, gid)
	if err != nil {
		return err
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
