package native

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attributes puts the process into a group of its own and makes it die with
// the thread that starts it. A session of its own it gets where a cgroup holds
// what it starts: else the session is how the node finds that.
func attributes(enclosed bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: !enclosed, Setsid: enclosed, Pdeathsig: syscall.SIGKILL}
}

// adopt makes this process the parent of whatever its children leave behind.
func adopt() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// reap waits for the process, ends what it leaves, and returns how it ended, nil
// if unknown. Meanwhile the process is dead but still holds its number, so
// that killing the group cannot hit another one.
func (p *Process) reap() *os.ProcessState {
	if p.alone {
		awaitAmongOrphans(p.main.Pid)
	} else {
		await(p.main.Pid)
	}
	p.sweep()
	p.mu.Lock()
	p.gone = true
	p.mu.Unlock()
	state, _ := p.main.Wait()
	return state
}

// await returns when a child is dead, without reaping it.
func await(pid int) {
	for errors.Is(unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
}

// child is how the kernel tells of one that has ended.
type child struct {
	signal, errno, code int32
	_                   [0]uintptr // what follows is aligned like a pointer
	pid                 int32
	_                   [128]byte // as much as the kernel may write, and more
}

// awaitAmongOrphans is await for a process that adopts: meanwhile it reaps all
// others. Each is looked at first, so that nobody else's exit is taken.
func awaitAmongOrphans(pid int) {
	for {
		var c child
		err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&c)), unix.WEXITED|unix.WNOWAIT, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil || int(c.pid) == pid:
			return
		default:
			bury(int(c.pid))
		}
	}
}

// bury reaps an orphan that is dead.
func bury(pid int) {
	_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // it is there, and ours
}
