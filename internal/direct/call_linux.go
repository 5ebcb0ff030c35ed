package direct

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// room is how many bytes a pipe takes before its reader must have read some: more
// than the payload of 64 KiB that pipes have room for without being asked. A user who is not root may
// have 64 MiB of it (/proc/sys/fs/pipe-user-pages-soft); what is beyond stays smaller.
const room = 128 << 10

// enlarge gives a pipe more room if the kernel has it.
func enlarge(pipe *os.File) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, room) // it stays as it is otherwise
	})
}

// Read reads from a descriptor that does not block. p is not empty.
func Read(fd int, p []byte) (int, error) { return call(syscall.SYS_READ, fd, p) }

// Write writes to one, maybe less than p, which is not empty.
func Write(fd int, p []byte) (int, error) { return call(syscall.SYS_WRITE, fd, p) }

func call(number uintptr, fd int, p []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(number, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
