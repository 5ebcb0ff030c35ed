package confine

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// denied are the system calls that fail with EPERM, whoever asks: they reach
// other processes, the kernel or what is mounted, or have often had holes.
// Programs of a service, and V8, do without.
var denied = append([]uintptr{
	// What is mounted, and namespaces; clone is looked at more closely.
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_STATMOUNT,
	unix.SYS_LISTMOUNT, openTreeAttr, unix.SYS_UNSHARE, unix.SYS_SETNS,
	// Other processes.
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_PROCESS_MRELEASE,
	unix.SYS_KCMP, unix.SYS_PIDFD_GETFD, unix.SYS_MOVE_PAGES, unix.SYS_MIGRATE_PAGES,
	// Files by handle, past all directories; notice of what others do with files.
	unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_FANOTIFY_INIT, unix.SYS_FANOTIFY_MARK,
	// Parts of the kernel that are programmed from outside, and how to win races in it.
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	// Keys, which namespaces do not part.
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	// The host itself.
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_SYSLOG,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_CLOCK_ADJTIME, unix.SYS_ADJTIMEX, unix.SYS_SETHOSTNAME,
	unix.SYS_SETDOMAINNAME, unix.SYS_VHANGUP, unix.SYS_LOOKUP_DCOOKIE, unix.SYS_NFSSERVCTL,
}, deniedHere...)

// openTreeAttr is younger than the list of system calls in use.
const openTreeAttr = 467

// makesNamespaces are the flags of clone that ask for a namespace.
const makesNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// Offsets in what a filter is run on, struct seccomp_data: the lower half of an
// argument comes first on the processors that Nex runs on.
const (
	offsetCall      = 0
	offsetProcessor = 4
	offsetArguments = 16
)

func argument(n uint32) uint32 { return offsetArguments + 8*n }

// filter is a program for the kernel's filters of system calls.
type filter []unix.SockFilter

func statement(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

func load(offset uint32) unix.SockFilter {
	return statement(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset)
}

// when compares what was loaded; yes and no are how many instructions to skip.
func when(test uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, K: k, Jt: yes, Jf: no}
}

func answer(action uint32) unix.SockFilter { return statement(unix.BPF_RET|unix.BPF_K, action) }

var (
	allow = answer(unix.SECCOMP_RET_ALLOW)
	kill  = answer(unix.SECCOMP_RET_KILL_PROCESS)
)

func fail(errno unix.Errno) unix.SockFilter { return answer(unix.SECCOMP_RET_ERRNO | uint32(errno)) }

// on adds what is done with a call, which must end with an answer on every way.
func (f *filter) on(call uintptr, body ...unix.SockFilter) {
	*f = append(*f, when(unix.BPF_JEQ, uint32(call), 0, uint8(len(body))))
	*f = append(*f, body...)
}

// rules is the whole filter.
func rules() filter {
	f := filter{load(offsetProcessor), when(unix.BPF_JEQ, auditProcessor, 1, 0), kill, load(offsetCall)}
	f = append(f, foreign...)
	for _, call := range denied {
		f.on(call, fail(unix.EPERM))
	}
	// Its flags are in memory, out of a filter's reach; the C library then uses clone.
	f.on(unix.SYS_CLONE3, fail(unix.ENOSYS))
	f.on(unix.SYS_CLONE, load(argument(0)), when(unix.BPF_JSET, makesNamespaces, 0, 1), fail(unix.EPERM), allow)
	// Limits of oneself, not of others.
	f.on(unix.SYS_PRLIMIT64, load(argument(0)), when(unix.BPF_JEQ, 0, 0, 1), allow, fail(unix.EPERM))
	// What is typed at a terminal.
	f.on(unix.SYS_IOCTL, load(argument(1)), when(unix.BPF_JEQ, unix.TIOCSTI, 1, 0), when(unix.BPF_JEQ, unix.TIOCLINUX, 0, 1), fail(unix.EPERM), allow)
	// Only the usual, and no fixed addresses.
	const query, noRandom = 0xffffffff, 0x0040000
	f.on(unix.SYS_PERSONALITY, load(argument(0)), when(unix.BPF_JEQ, 0, 3, 0), when(unix.BPF_JEQ, query, 2, 0), when(unix.BPF_JEQ, noRandom, 1, 0), fail(unix.EPERM), allow)
	f.on(unix.SYS_SOCKET, sockets()...)
	f.on(unix.SYS_SOCKETPAIR, load(argument(0)), when(unix.BPF_JEQ, unix.AF_UNIX, 0, 1), allow, fail(unix.EAFNOSUPPORT))
	return append(f, allow)
}

// sockets allows TCP, UDP and pings over IP, Unix sockets, and asking for routes
// and interfaces.
func sockets() []unix.SockFilter {
	const kindOf = 0xf
	return []unix.SockFilter{
		load(argument(0)),
		when(unix.BPF_JEQ, unix.AF_UNIX, 15, 0),
		when(unix.BPF_JEQ, unix.AF_INET, 3, 0),
		when(unix.BPF_JEQ, unix.AF_INET6, 2, 0),
		when(unix.BPF_JEQ, unix.AF_NETLINK, 9, 0),
		fail(unix.EAFNOSUPPORT),
		load(argument(1)), // of IP
		statement(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, kindOf),
		when(unix.BPF_JEQ, unix.SOCK_STREAM, 1, 0),
		when(unix.BPF_JEQ, unix.SOCK_DGRAM, 0, 6),
		load(argument(2)), // others bring more of the kernel, and MPTCP gets past Landlock
		when(unix.BPF_JGT, unix.IPPROTO_UDP, 1, 0),
		allow, // 0, TCP, UDP, ICMP; what is between them the kernel refuses
		when(unix.BPF_JEQ, unix.IPPROTO_ICMPV6, 3, 4),
		load(argument(2)), // of netlink
		when(unix.BPF_JEQ, unix.NETLINK_ROUTE, 1, 0),
		fail(unix.EPERM),
		allow,
		fail(unix.EPROTONOSUPPORT),
	}
}

// seccomp applies the filter to the calling thread.
func seccomp() error {
	if auditProcessor == 0 {
		return errors.New("there is no filter of system calls for this processor")
	}
	f := rules()
	program := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("this kernel takes no filter of system calls (CONFIG_SECCOMP_FILTER): %w", errno)
	}
	return nil
}
