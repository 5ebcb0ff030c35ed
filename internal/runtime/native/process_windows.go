package native

import (
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

const defaultPath = `C:\Windows\System32;C:\Windows`

// attributes puts the process into a group of its own, which can be sent a
// Ctrl-Break.
func attributes(bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
}

func tooLarge(syscall.WaitStatus) bool { return false }

func terminateGroup(p *os.Process) {
	_ = windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(p.Pid))
}

// killGroup reaches the main process only: Windows groups cannot be killed.
func killGroup(p *os.Process) { _ = p.Kill() }
