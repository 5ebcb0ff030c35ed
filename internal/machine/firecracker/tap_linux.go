package firecracker

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// giveTap makes a tap that is there the given user's and group's: who is not root
// may use no other. netns is the path of the namespace that it is in, "" for the node's.
func giveTap(netns, name string, uid, gid int) error {
	done := make(chan error, 1)
	go func() {
		if netns == "" {
			done <- ownTap(name, uid, gid)
			return
		}
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		if err := enterNetNS(netns); err != nil {
			done <- fmt.Errorf("enter network namespace %s: %w", netns, err)
			return
		}
		done <- ownTap(name, uid, gid)
	}()
	return <-done
}

func enterNetNS(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
}

// ownTap attaches to the tap as Firecracker does, says whose it is, and detaches. See
// tuntap.rst of Linux.
func ownTap(name string, uid, gid int) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return errors.Join(unix.IoctlSetInt(fd, unix.TUNSETOWNER, uid), unix.IoctlSetInt(fd, unix.TUNSETGROUP, gid))
}
