package main

import (
	"syscall"
	"unsafe"
)

// System calls that package syscall does not name on every processor.
const (
	sysKcmp            = 312
	sysProcessVMReadv  = 310
	sysProcessVMWritev = 311
	sysPrlimit64       = 302
	sysMigratePages    = 256
	sysPidfdOpen       = 434
	sysPidfdGetfd      = 438
)

func text(s string) uintptr {
	p, _ := syscall.BytePtrFromString(s)
	kept = append(kept, p)
	return uintptr(unsafe.Pointer(p))
}

var kept []*byte // as long as the program runs

func kernel(call caller) {
	const here = ^uintptr(99) // AT_FDCWD
	call("mount a tmpfs", syscall.SYS_MOUNT, text("none"), text("/tmp"), text("tmpfs"), 0, 0)
	call("mount: make the root writable", syscall.SYS_MOUNT, text("none"), text("/"), 0, syscall.MS_REMOUNT|syscall.MS_BIND, 0)
	call("mount proc anew", syscall.SYS_MOUNT, text("none"), text("/tmp"), text("proc"), 0, 0)
	call("umount /proc", syscall.SYS_UMOUNT2, text("/proc"), 2)
	call("umount what hides /proc/kcore", syscall.SYS_UMOUNT2, text("/proc/kcore"), 2)
	call("pivot_root", syscall.SYS_PIVOT_ROOT, text("/"), text("/tmp"))
	call("chroot", syscall.SYS_CHROOT, text("/tmp"))
	call("open_tree", 428, here, text("/"), 1)
	call("move_mount", 429, here, text("/proc"), here, text("/tmp"), 0)
	call("fsopen", 430, text("tmpfs"), 0)
	call("fspick", 433, here, text("/"), 0)
	call("mount_setattr", 442, here, text("/"), 0, uintptr(unsafe.Pointer(&[4]uint64{0, 1, 0, 0})), 32)
	call("open_tree_attr", 467, here, text("/"), 1, uintptr(unsafe.Pointer(&[4]uint64{})), 32)

	for _, ns := range []struct {
		name string
		flag uintptr
	}{{"user", syscall.CLONE_NEWUSER}, {"mount", syscall.CLONE_NEWNS}, {"network", syscall.CLONE_NEWNET}, {"pid", syscall.CLONE_NEWPID}, {"cgroup", 0x02000000}} {
		call("unshare: "+ns.name+" namespace", syscall.SYS_UNSHARE, ns.flag)
		call("clone: "+ns.name+" namespace", syscall.SYS_CLONE, ns.flag|uintptr(syscall.SIGCHLD))
		call("clone3: "+ns.name+" namespace", 435, uintptr(unsafe.Pointer(&[8]uint64{uint64(ns.flag), 0, 0, 0, uint64(syscall.SIGCHLD)})), 64)
	}
	call("setns", 308, 0, 0)

	call("bpf", 321, 0, uintptr(unsafe.Pointer(&[16]uint64{1 | 4<<32, 4 | 1<<32})), 128)
	call("perf_event_open", 298, uintptr(unsafe.Pointer(&[16]uint64{1 | 112<<32})), 0, ^uintptr(0), ^uintptr(0), 0)
	call("userfaultfd", 323, 1)
	call("io_uring_setup", 425, 1, uintptr(unsafe.Pointer(&[15]uint64{})))
	call("keyctl: session keyring", syscall.SYS_KEYCTL, 0, ^uintptr(2), 1)
	call("add_key", syscall.SYS_ADD_KEY, text("user"), text("nex"), text("x"), 1, ^uintptr(1))
	call("request_key", syscall.SYS_REQUEST_KEY, text("user"), text("nex"), 0, 0)
	call("init_module", syscall.SYS_INIT_MODULE, 0, 0, 0)
	call("finit_module", 313, 0, 0, 0)
	call("delete_module", syscall.SYS_DELETE_MODULE, text("nex"), 0)
	call("kexec_load", syscall.SYS_KEXEC_LOAD, 0, 0, 0, 0)
	call("reboot", syscall.SYS_REBOOT, 0, 0, 0)
	call("swapon", syscall.SYS_SWAPON, text("/tmp"), 0)
	call("acct", syscall.SYS_ACCT, 0)
	call("syslog", syscall.SYS_SYSLOG, 10, 0, 0)
	call("settimeofday", syscall.SYS_SETTIMEOFDAY, 0, 0)
	call("sethostname", syscall.SYS_SETHOSTNAME, text("x"), 1)
	call("iopl", syscall.SYS_IOPL, 3)
	call("ioperm", syscall.SYS_IOPERM, 0, 1, 1)
	call("modify_ldt", syscall.SYS_MODIFY_LDT, 0, 0, 0)
	call("personality: old addresses", syscall.SYS_PERSONALITY, 0x0200000)
	call("name_to_handle_at", 303, here, text("/"), uintptr(unsafe.Pointer(&[34]uint32{128})), uintptr(unsafe.Pointer(new(uint32))), 0)
	call("open_by_handle_at", 304, here, uintptr(unsafe.Pointer(&[34]uint32{8, 1})), 0)
	call("fanotify_init", 300, 0, 0)
	call("ioctl: type at the terminal", syscall.SYS_IOCTL, 0, 0x5412, text("x"))
	call("a call by its x32 number", 0x40000000|syscall.SYS_GETPID)
}
