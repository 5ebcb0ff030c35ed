//go:build unix && !linux

package machine

import (
	"syscall"

	"golang.org/x/sys/unix"

	"nex"
)

func sessionAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

func socketPairFDs() ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	return fds, err
}

// awaitExit has nothing to do: there is no waiting without reaping here.
func awaitExit(int) error { return nil }

// killSession does nothing: agents end their workloads when the link ends.
func killSession(int) {}

// sessionUsage tells nothing: there is no /proc here.
func sessionUsage(int) (nex.Usage, error) { return nex.Usage{}, nil }

// volunteer does nothing: there is no asking for it here.
func volunteer(int) error { return nil }
