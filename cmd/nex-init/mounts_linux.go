package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	imageDevice = "/dev/vda"
	ownDevice   = "/dev/vdb"
	deviceWait  = 20 * time.Second
)

// kernelMounts mounts what the kernel offers.
func kernelMounts() error {
	for _, m := range []struct{ kind, where string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := os.MkdirAll(m.where, 0o755); err != nil {
			return err
		}
		err := unix.Mount(m.kind, m.where, m.kind, unix.MS_NOSUID, "")
		if err != nil && !errors.Is(err, unix.EBUSY) { // the kernel may have mounted /dev
			return fmt.Errorf("mount %s: %w", m.where, err)
		}
	}
	return nil
}

// assemble mounts the image with the machine's own disk over it. A machine
// without a disk of its own writes into its memory.
func assemble() error {
	if err := await(imageDevice); err != nil {
		return err
	}
	if err := mount(imageDevice, lower, "ext4", unix.MS_RDONLY, ""); err != nil {
		return err
	}
	if _, err := os.Stat(ownDevice); err == nil {
		err = mount(ownDevice, upper, "ext4", unix.MS_NOATIME, "")
		if err != nil {
			return err
		}
	} else if err := mount("tmpfs", upper, "tmpfs", 0, "mode=0755"); err != nil {
		return err
	}
	changed, work := filepath.Join(upper, "changed"), filepath.Join(upper, "work")
	for _, dir := range []string{changed, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	options := "lowerdir=" + lower + ",upperdir=" + changed + ",workdir=" + work
	err := mount("overlay", root, "overlay", 0, options+",volatile") // nobody reads the disk after this machine
	if err != nil {
		err = mount("overlay", root, "overlay", 0, options) // which kernels before 5.10 do not know
	}
	return err
}

func mount(device, where, kind string, flags uintptr, options string) error {
	if err := os.MkdirAll(where, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device, where, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s at %s as %s: %w", device, where, kind, err)
	}
	return nil
}

// await waits for a device, which the kernel may find late.
func await(device string) error {
	for end := time.Now().Add(deviceWait); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(device); err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("there is no %s: the machine has no disk, or the kernel no driver for it", device)
		}
	}
}

// switchRoot makes the assembled file system the root, and gives back the
// memory that the initramfs took.
func switchRoot() error {
	for _, where := range []string{"/dev", "/proc", "/sys"} {
		target := filepath.Join(root, where)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(where, target, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s to the root file system: %w", where, err)
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	for _, used := range []string{"/modules", "/init"} {
		if err := os.RemoveAll(used); err != nil {
			return err
		}
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("make %s the root: %w", root, err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	return os.Chdir("/")
}
