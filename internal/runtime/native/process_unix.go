//go:build unix

package native

import (
	"os"
	"syscall"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func tooLarge(s syscall.WaitStatus) bool { return s.Signal() == syscall.SIGXFSZ }

// The leader's process id is the group's number. Errors mean that the group is
// gone already.

func terminateGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGTERM) }

func killGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }
