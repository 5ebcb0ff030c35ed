package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Sizes of what is kept in memory, as mount options.
const (
	rootSize = "4m" // a few empty files, and a copy of resolv.conf
	shmSize  = "64m"
	// shmFiles bounds the empty files, which count for nothing in the size.
	shmFiles = "16k"
)

// devices are the nodes of the host that are inside, too.
var devices = []string{"null", "zero", "full", "random", "urandom"}

// hidden are the files and directories of /proc that tell of the host or
// reach into it; what is left of /proc is read-only.
var hidden = []string{
	"acpi", "asound", "bus", "buddyinfo", "cmdline", "config.gz", "consoles", "crypto", "devices", "diskstats", "dma", "driver",
	"dynamic_debug", "execdomains", "fb", "fs", "interrupts", "iomem", "ioports", "irq", "kallsyms", "kcore", "key-users", "keys",
	"kmsg", "kpagecgroup", "kpagecount", "kpageflags", "latency_stats", "locks", "mdstat", "misc", "modules", "mtrr", "pagetypeinfo",
	"partitions", "pressure", "sched_debug", "schedstat", "scsi", "slabinfo", "swaps", "sysrq-trigger", "sysvipc", "timer_list",
	"timer_stats", "tty", "vmallocinfo", "vmcore", "zoneinfo",
}

// hostFiles are what programs need to know of the host's network, if they use it.
var hostFiles = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"}

// ownFiles are in every root.
var ownFiles = map[string]string{
	"etc/passwd": fmt.Sprintf("nex:x:%d:%d::%s:\n", inner, inner, workDir),
	"etc/group":  fmt.Sprintf("nex:x:%d:\n", inner),
}

// buildRoot makes a root directory in the calling thread's mount namespace and
// changes to it. The current directory, a machine's, is where it writes.
//
// Paths are relative to directories that are open: others may lead through
// directories that this user must not enter.
func buildRoot(network Network) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts private: %w", err)
	}
	work, err := cloneOwn("work")
	if err != nil {
		return err
	}
	tmp, err := cloneOwn("tmp")
	if err != nil {
		return err
	}
	if err := enterTmpfs(); err != nil {
		return err
	}
	steps := []struct {
		what string
		do   func() error
	}{
		{"attach work directory", func() error { return attach(work, workDir[1:]) }},
		{"attach temporary directory", func() error { return attach(tmp, tmpDir[1:]) }},
		{"fill /etc", func() error { return fillEtc(network) }},
		{"fill /dev", fillDev},
		{"mount /proc", mountProc},
		{"change root", changeRoot},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

// cloneOwn makes a directory in the current one and returns a mount of it.
func cloneOwn(name string) (tree int, err error) {
	if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return -1, fmt.Errorf("make directory of the machine: %w", err)
	}
	return cloneTree(name, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
}

// cloneTree returns a mount, attached nowhere yet, of a file or directory.
func cloneTree(path string, attributes uint64) (tree int, err error) {
	tree, err = unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("clone mount of %s: %w", path, err)
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attributes}); err != nil {
		return -1, fmt.Errorf("restrict mount of %s: %w", path, err)
	}
	return tree, nil
}

// mountNew returns a mount, attached nowhere yet, of a new file system.
func mountNew(kind string, options map[string]string, attributes int) (tree int, err error) {
	ctx, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(ctx)
	for key, value := range options {
		if err := unix.FsconfigSetString(ctx, key, value); err != nil {
			return -1, fmt.Errorf("%s=%s: %w", key, value, err)
		}
	}
	if err := unix.FsconfigCreate(ctx); err != nil {
		return -1, err
	}
	return unix.Fsmount(ctx, unix.FSMOUNT_CLOEXEC, attributes)
}

// attach attaches a mount to a new directory below the current one.
func attach(tree int, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return attachTo(tree, dir)
}

func attachTo(tree int, path string) error {
	err := unix.MoveMount(tree, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH)
	return errors.Join(err, unix.Close(tree))
}

// enterTmpfs covers the current directory with an empty one and makes that the
// current one.
func enterTmpfs() error {
	root, err := mountNew("tmpfs", map[string]string{"size": rootSize, "mode": "0755"}, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return fmt.Errorf("make root: %w", err)
	}
	if err := cover(root); err != nil {
		return fmt.Errorf("attach root: %w", err)
	}
	return nil
}

// cover attaches a mount over the current directory and makes that the current
// one.
func cover(tree int) error {
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, ".", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return err
	}
	return errors.Join(unix.Fchdir(tree), unix.Close(tree))
}

func fillEtc(network Network) error {
	if err := os.Mkdir("etc", 0o755); err != nil {
		return err
	}
	for path, content := range ownFiles {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	if network != HostNetwork {
		return os.WriteFile("etc/hosts", []byte("127.0.0.1 localhost\n::1 localhost\n"), 0o644)
	}
	for _, path := range hostFiles {
		content, err := os.ReadFile(path)
		if err != nil {
			continue // there are hosts without, and then there are programs without
		}
		if err := os.MkdirAll(filepath.Dir(path[1:]), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path[1:], content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func fillDev() error {
	if err := os.Mkdir("dev", 0o755); err != nil {
		return err
	}
	for _, name := range devices {
		tree, err := cloneTree("/dev/"+name, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
		if err != nil {
			return err
		}
		if err := errors.Join(os.WriteFile("dev/"+name, nil, 0o600), attachTo(tree, "dev/"+name)); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"} {
		if err := os.Symlink("/proc/self/fd"+target, "dev/"+name); err != nil {
			return err
		}
	}
	shm, err := mountNew("tmpfs", map[string]string{"size": shmSize, "nr_inodes": shmFiles, "mode": "1777"}, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return err
	}
	return attach(shm, "dev/shm")
}

// mountProc shows the processes of this pid namespace, and hides the rest.
func mountProc() error {
	const flags = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_RDONLY
	proc, err := mountNew("proc", nil, flags)
	if err != nil {
		return err
	}
	if err := attach(proc, "proc"); err != nil {
		return err
	}
	for _, name := range hidden {
		path := "proc/" + name
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			continue // to what belongs to the process itself
		}
		if err := hide(path, info.IsDir()); err != nil {
			return fmt.Errorf("hide %s: %w", path, err)
		}
	}
	return nil
}

// hide covers a directory with an empty one, and a file with /dev/null.
func hide(path string, dir bool) error {
	if !dir {
		null, err := cloneTree("/dev/null", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_RDONLY)
		if err != nil {
			return err
		}
		return attachTo(null, path)
	}
	empty, err := mountNew("tmpfs", map[string]string{"size": "4k", "mode": "0555"},
		unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return err
	}
	return attachTo(empty, path)
}

// changeRoot makes the current directory the root, read-only, and lets go of the
// host's.
func changeRoot() error {
	if err := pivot(); err != nil {
		return err
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return err
	}
	return unix.Chdir(workDir)
}

// pivot makes the current directory, at which something is mounted, the root, and
// lets go of the host's.
func pivot() error {
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	return unix.Unmount(".", unix.MNT_DETACH) // the old one, which is on top
}
