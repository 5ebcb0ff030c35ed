//go:build unix && !linux

package native

import "syscall"

// attributes puts the process into a group of its own.
func attributes(bool) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
