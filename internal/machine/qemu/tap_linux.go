package qemu

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"nex/internal/machine/microvm"
)

// openTap opens the host's end of a network card, which is a tap in a network
// namespace: QEMU itself then needs to be in none, and may do nothing else there.
func openTap(nic *microvm.NIC) (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	done := make(chan result)
	go func() {
		if nic.NetNS != "" {
			runtime.LockOSThread() // and never unlocked: the thread ends with this function
			if err := enterNetNS(nic.NetNS); err != nil {
				done <- result{nil, err}
				return
			}
		}
		file, err := attachTap(nic.Tap)
		done <- result{file, err}
	}()
	r := <-done
	return r.file, r.err
}

func enterNetNS(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// attachTap opens a tap of this thread's network namespace.
func attachTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach to tap %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "tap"), nil
}
