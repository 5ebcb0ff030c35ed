//go:build unix && !linux

package direct

import (
	"errors"
	"os"
	"syscall"
)

// enlarge does nothing: pipes grow by themselves here.
func enlarge(*os.File) {}

// Read reads from a descriptor that does not block. p is not empty. System calls
// without the scheduler's knowledge are not to be had here.
func Read(fd int, p []byte) (int, error) { return again(syscall.Read, fd, p) }

// Write writes to one, maybe less than p, which is not empty.
func Write(fd int, p []byte) (int, error) { return again(syscall.Write, fd, p) }

func again(call func(int, []byte) (int, error), fd int, p []byte) (int, error) {
	for {
		n, err := call(fd, p)
		if !errors.Is(err, syscall.EINTR) {
			return max(n, 0), err
		}
	}
}
