package vmnet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// netnsDir is where network namespaces with a name are, as "ip netns" has them.
const netnsDir = "/var/run/netns"

// onThread runs work on an operating system's thread that ends with it, whatever
// work did to the thread. The main thread cannot end and is left out.
func onThread(work func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not unlocked after work: the thread ends with its goroutine
		if unix.Gettid() == unix.Getpid() {
			err := onThread(work) // another thread, while this one is held
			runtime.UnlockOSThread()
			result <- err
			return
		}
		result <- work()
	}()
	return <-result
}

// makeNetNS makes a network namespace with a name.
func makeNetNS(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace (root can): %w", err)
		}
		if err := unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("give the network namespace its name %s: %w", path, err)
		}
		return nil
	})
	if err != nil {
		os.Remove(path)
	}
	return err
}

// isNetNS reports whether a namespace is at path, rather than a file or nothing.
func isNetNS(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// removeNetNS takes a namespace its name, and that is all that holds it when no
// process is left in it. One that is not there is fine.
func removeNetNS(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // EINVAL: no mount
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Within runs work with the network of the namespace at path. It runs on a thread of
// its own that ends afterwards: a process that work starts is in the namespace too,
// and hears of its parent's end (PDEATHSIG) when work returns.
func Within(path string, work func() error) error {
	return onThread(func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", path, err)
		}
		return work()
	})
}

// OpenTap opens the tap of a network card as a VMM does, with the header of
// virtio-net (10 bytes) before each frame if vnet. The caller closes it; the tap
// stays.
func OpenTap(n *NIC, vnet bool) (*os.File, error) {
	var f *os.File
	err := Within(n.NetNS, func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		request, err := unix.NewIfreq(n.Tap)
		if err == nil {
			flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI)
			if vnet {
				flags |= unix.IFF_VNET_HDR
			}
			request.SetUint16(flags)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			unix.Close(fd)
			return fmt.Errorf("open tap %s: %w", n.Tap, err)
		}
		f = os.NewFile(uintptr(fd), n.Tap)
		return nil
	})
	return f, err
}
