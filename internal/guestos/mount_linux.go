package guestos

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// point is what belongs at one place of every system.
type point struct {
	dir, kind, options string
	flags              uintptr
	vital              bool // no agent without it
}

var proc = point{dir: "/proc", kind: "proc", flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, vital: true}

// points are in the order they are mounted.
var points = []point{
	proc,
	{dir: "/sys", kind: "sysfs", flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, vital: true},
	{dir: "/dev", kind: "devtmpfs", options: "mode=0755", flags: unix.MS_NOSUID, vital: true},
	{dir: "/dev/pts", kind: "devpts", options: "ptmxmode=0666,mode=0620,gid=5", flags: unix.MS_NOSUID | unix.MS_NOEXEC},
	{dir: "/dev/shm", kind: "tmpfs", options: "mode=1777", flags: unix.MS_NOSUID | unix.MS_NODEV},
	{dir: "/run", kind: "tmpfs", options: "mode=0755", flags: unix.MS_NOSUID | unix.MS_NODEV},
	{dir: "/sys/fs/cgroup", kind: "cgroup2", flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
}

// mountAll mounts what is missing. What is not vital is told and left out.
func mountAll() error {
	for _, p := range points {
		err := mount(p)
		if errors.Is(err, unix.ENODEV) && !p.vital {
			continue // this kernel does not have it
		}
		if err != nil && p.vital {
			return fmt.Errorf("mount %s: %w", p.dir, err)
		}
		if err != nil {
			say("mount %s: %v", p.dir, err)
		}
	}
	return nil
}

// mount mounts one unless something is mounted there.
func mount(p point) error {
	there, err := mounted(p.dir)
	if there {
		return nil
	}
	if errors.Is(err, os.ErrNotExist) {
		err = os.Mkdir(p.dir, 0o755)
	}
	if err != nil {
		return err
	}
	return unix.Mount(p.kind, p.dir, p.kind, p.flags, p.options)
}

// mounted reports whether a directory is another file system than the one it is in.
func mounted(dir string) (bool, error) {
	var own, above unix.Stat_t
	if err := unix.Stat(dir, &own); err != nil {
		return false, err
	}
	if err := unix.Stat(filepath.Dir(dir), &above); err != nil {
		return false, err
	}
	return own.Dev != above.Dev, nil
}

// openConsole makes the console the standard output, where there is one, and
// nothing the standard input.
func openConsole() {
	if fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		replace(fd, 0)
	}
	fd, err := unix.Open("/dev/console", unix.O_WRONLY|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil { // a machine without
		if fd, err = unix.Open(os.DevNull, unix.O_WRONLY|unix.O_CLOEXEC, 0); err != nil {
			return
		}
	}
	replace(fd, 1, 2)
}

// replace makes fd the others and closes it.
func replace(fd int, others ...int) {
	for _, other := range others {
		_ = unix.Dup3(fd, other, 0) // fails only for what is no descriptor
	}
	_ = unix.Close(fd)
}
