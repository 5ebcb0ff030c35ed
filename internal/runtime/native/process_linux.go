package native

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes puts the process into a group of its own and makes it die with
// the thread that starts it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// reap waits for the process and returns how it ended, nil if unknown. It calls
// dead when the process is dead but still holds its number, so that killing
// the group cannot hit another one.
func reap(p *os.Process, dead func()) *os.ProcessState {
	for {
		err := unix.Waitid(unix.P_PID, p.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	dead()
	state, _ := p.Wait()
	return state
}
