package confine

import "golang.org/x/sys/unix"

const auditProcessor = unix.AUDIT_ARCH_X86_64

// foreign refuses the calls of the x32 interface, which have other numbers.
var foreign = []unix.SockFilter{when(unix.BPF_JGE, 1<<30, 0, 1), fail(unix.ENOSYS)}

// deniedHere are calls that only this processor has.
var deniedHere = []uintptr{
	unix.SYS_IOPL, unix.SYS_IOPERM, unix.SYS_MODIFY_LDT, unix.SYS_USELIB, unix.SYS_USTAT, unix.SYS_SYSFS, unix.SYS__SYSCTL,
	unix.SYS_CREATE_MODULE, unix.SYS_GET_KERNEL_SYMS, unix.SYS_QUERY_MODULE,
}
