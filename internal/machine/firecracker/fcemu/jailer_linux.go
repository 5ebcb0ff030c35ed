package fcemu

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const noBlock = syscall.O_NONBLOCK

// jailerOptions are those of the jailer, as docs/jailer.md of Firecracker has them.
var jailerOptions = map[string]option{
	"id": {required: true}, "exec-file": {required: true}, "uid": {required: true}, "gid": {required: true},
	"chroot-base-dir": {}, "netns": {}, "cgroup": {many: true}, "cgroup-version": {}, "parent-cgroup": {},
	"resource-limit": {many: true}, "daemonize": {flag: true}, "new-pid-ns": {flag: true}, "version": {flag: true},
}

// jail is the program that passes for the jailer: it becomes the emulator.
func jail(s settings, args []string, out io.Writer) error {
	values, extra, err := parse(args, jailerOptions)
	if len(args) == 1 && args[0] == "--version" {
		_, err := fmt.Fprintf(out, "Jailer v%s\n\n", s.Version)
		return err
	}
	if err != nil {
		return err
	}
	if os.Getuid() != 0 {
		return errors.New("the jailer has to be started by root")
	}
	j, err := readJail(values)
	if err != nil {
		return err
	}
	if err := j.build(); err != nil {
		return err
	}
	// A user's file is a file that the user may open: the emulator itself is root.
	if err := j.checkOwners(); err != nil {
		return err
	}
	runtime.LockOSThread() // the namespace is a thread's
	if j.netns != "" {
		if err := join(j.netns); err != nil {
			return err
		}
	}
	if err := os.Chdir(j.root); err != nil {
		return err
	}
	// The kernel forgets this when the real one changes its user.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0); err != nil {
		return err
	}
	argv := append([]string{j.program, "--id", j.id, "--start-time-us", "0", "--start-time-cpu-us", "0"}, extra...)
	return syscall.Exec(j.program, argv, []string{jailVariable + "=1"})
}

// jailConfig is what a jailer is told.
type jailConfig struct {
	id, program, root, netns string
	uid, gid                 int
}

func readJail(values map[string][]string) (j jailConfig, err error) {
	j.id, j.netns = one(values, "id"), one(values, "netns")
	if err := checkInstanceID(j.id); err != nil {
		return j, err
	}
	if j.program, err = filepath.EvalSymlinks(one(values, "exec-file")); err != nil {
		return j, err
	}
	if !strings.Contains(filepath.Base(j.program), "firecracker") {
		return j, fmt.Errorf("invalid filename: the name of --exec-file must contain 'firecracker': %s", j.program)
	}
	for name, into := range map[string]*int{"uid": &j.uid, "gid": &j.gid} {
		n, err := strconv.ParseUint(one(values, name), 10, 32)
		if err != nil {
			return j, fmt.Errorf("--%s: %w", name, err)
		}
		*into = int(n)
	}
	base := one(values, "chroot-base-dir")
	if base == "" {
		base = "/srv/jailer"
	}
	if base, err = filepath.EvalSymlinks(base); err != nil {
		return j, err
	}
	j.root = filepath.Join(base, filepath.Base(j.program), j.id, "root")
	if version := one(values, "cgroup-version"); version != "" && version != "1" && version != "2" {
		return j, fmt.Errorf("invalid cgroup version %q", version)
	}
	if !filepath.IsLocal(one(values, "parent-cgroup")) && values["parent-cgroup"] != nil {
		return j, errors.New("the parent cgroup must be a relative path, and lead nowhere up")
	}
	for _, setting := range values["cgroup"] {
		if file, value, ok := strings.Cut(setting, "="); !ok || value == "" || !strings.Contains(file, ".") {
			return j, fmt.Errorf("invalid format of --cgroup %q", setting)
		}
	}
	for _, limit := range values["resource-limit"] {
		name, value, _ := strings.Cut(limit, "=")
		if _, err := strconv.ParseUint(value, 10, 64); err != nil || name != "fsize" && name != "no-file" {
			return j, fmt.Errorf("invalid --resource-limit %q", limit)
		}
	}
	return j, nil
}

// build makes the root directory what the jailer makes it, but for the copy of the
// program and the devices, which nothing here would use.
func (j jailConfig) build() error {
	for _, dir := range []string{"", "dev", "dev/net", "run"} {
		at := filepath.Join(j.root, dir)
		if err := os.MkdirAll(at, 0o700); err != nil {
			return err
		}
		if err := os.Chown(at, j.uid, j.gid); err != nil {
			return err
		}
	}
	return nil
}

// checkOwners sees that the jail's user may read every file in the root directory,
// and write those that are its own.
func (j jailConfig) checkOwners() error {
	entries, err := os.ReadDir(j.root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := os.Stat(filepath.Join(j.root, e.Name()))
		if err != nil {
			return fmt.Errorf("what leads out of a jail is nowhere inside: %w", err)
		}
		stat := info.Sys().(*syscall.Stat_t)
		mine := int(stat.Uid) == j.uid
		if !mine && info.Mode().Perm()&0o004 == 0 {
			return fmt.Errorf("user %d may not read %s (%v)", j.uid, e.Name(), info.Mode())
		}
		if link, err := os.Readlink(filepath.Join(j.root, e.Name())); err == nil {
			return fmt.Errorf("%s is a symbolic link to %s", e.Name(), link)
		}
	}
	return nil
}

func join(netns string) error {
	f, err := os.Open(netns)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
}
