package confine

import "golang.org/x/sys/unix"

const auditProcessor = unix.AUDIT_ARCH_AARCH64

var (
	foreign    []unix.SockFilter
	deniedHere []uintptr
)
