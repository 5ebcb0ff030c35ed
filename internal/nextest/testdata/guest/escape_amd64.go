package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// attempt returns nil if it got out, and otherwise what stopped it.
type attempt struct {
	name string
	try  func() error
}

// harmless says that something worked, and did not matter.
var harmless = errors.New("no effect")

func escape() {
	for _, a := range attempts() {
		if err := a.try(); err != nil {
			fmt.Printf("attempt %s\trefused\t%v\n", a.name, err)
		} else {
			fmt.Printf("attempt %s\tWORKED\n", a.name)
		}
	}
	fmt.Println("end of attempts")
	forever()
}

func attempts() (all []attempt) {
	add := func(name string, try func() error) { all = append(all, attempt{name, try}) }
	call := func(name string, number uintptr, args ...uintptr) {
		add(name, func() error {
			var a [6]uintptr
			copy(a[:], args)
			if _, _, errno := syscall.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
				return errno
			}
			return nil
		})
	}
	files(add)
	processes(add, call)
	kernel(call)
	network(add)
	privileges(add, call)
	subtle(add, call)
	return all
}

func files(add func(string, func() error)) {
	for _, path := range []string{
		"/outside", "/etc/outside", "/dev/outside", "/proc/outside", "/nex/outside", "../outside", "../bin/outside",
		os.Getenv("HOST_DIR") + "/outside", "/proc/1/root/outside", "/proc/1/cwd/outside",
	} {
		add("write "+shown(path), func() error { return os.WriteFile(path, []byte("x"), 0o600) })
	}
	add("remove the own directory's neighbours", func() error { return os.Remove("../bin") })
	for _, path := range []string{
		os.Getenv("HOST_DIR") + "/secret", "/etc/shadow", "/root", "/home", "/sys/kernel", "/var/lib",
		"/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/sda", "/dev/kvm", "/dev/tty0", "/dev/fuse", "/dev/net/tun",
		"/proc/1/environ", "/proc/1/mem", "/proc/1/maps", "/proc/1/fd", "/proc/1/root", "/proc/1/cwd", "/proc/1/io", "/proc/1/stack",
		"/proc/1/auxv", "/proc/1/map_files", "/proc/1/ns/user",
	} {
		add("read "+shown(path), func() error { return read(path) })
	}
	for _, name := range []string{"kcore", "kallsyms", "keys", "timer_list", "modules", "iomem", "cmdline", "config.gz", "sysrq-trigger", "interrupts"} {
		add("read /proc/"+name, func() error { return read("/proc/" + name) })
	}
	for _, name := range []string{"sys/kernel/core_pattern", "sys/kernel/hostname", "sys/vm/drop_caches", "sys/fs/binfmt_misc/register", "sysrq-trigger", "self/oom_score_adj", "self/uid_map", "1/oom_score_adj"} {
		add("write /proc/"+name, func() error { return overwrite("/proc/" + name) })
	}
	add("find a secret in the environment of any process", func() error {
		list, _ := filepath.Glob("/proc/[0-9]*/environ")
		for _, path := range list {
			if data, err := os.ReadFile(path); err == nil && strings.Contains(string(data), "HOST_SECRET") {
				return nil
			}
		}
		return fmt.Errorf("not in %d processes", len(list))
	})
	add("keep a file descriptor of the agent", func() error {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return err
		}
		for _, e := range list {
			target, err := os.Readlink("/proc/self/fd/" + e.Name())
			n, _ := strconv.Atoi(e.Name())
			if err == nil && n > 2 && !strings.HasPrefix(target, "anon_inode:") && !strings.HasPrefix(target, "/proc/") {
				fmt.Println("descriptor", n, target)
				return nil
			}
		}
		return fmt.Errorf("%d, all its own", len(list))
	})
}

// shown hides what differs from run to run.
func shown(path string) string {
	return strings.Replace(path, os.Getenv("HOST_DIR"), "HOST", 1)
}

// read tells whether there is anything to read.
func read(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		list, err := os.ReadDir(path)
		if err == nil && len(list) == 0 {
			return errors.New("empty")
		}
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := f.Read(make([]byte, 1))
	if n == 0 && err != nil {
		return err
	}
	return nil
}

func overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString("0")
	return err
}

type caller func(name string, number uintptr, args ...uintptr)

func processes(add func(string, func() error), call caller) {
	const attach, seize, all = 16, 0x4206, ^uintptr(0)
	call("ptrace: attach to the agent", syscall.SYS_PTRACE, attach, 1)
	call("ptrace: seize the agent", syscall.SYS_PTRACE, seize, 1)
	call("ptrace: own parent traces", syscall.SYS_PTRACE, 0)
	buffer := make([]byte, 8)
	local := syscall.Iovec{Base: &buffer[0], Len: 8}
	remote := [2]uintptr{0x400000, 8}
	call("process_vm_readv of the agent", sysProcessVMReadv, 1, uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1)
	call("process_vm_writev of the agent", sysProcessVMWritev, 1, uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1)
	call("kcmp with the agent", sysKcmp, uintptr(os.Getpid()), 1)
	call("prlimit of the agent", sysPrlimit64, 1, syscall.RLIMIT_CPU, uintptr(unsafe.Pointer(&syscall.Rlimit{Cur: 1, Max: 1})))
	call("migrate_pages of the agent", sysMigratePages, 1)
	add("pidfd_getfd of the agent's link", func() error {
		fd, _, errno := syscall.Syscall(sysPidfdOpen, 1, 0, 0)
		if errno != 0 {
			return errno
		}
		defer syscall.Close(int(fd))
		if _, _, errno = syscall.Syscall(sysPidfdGetfd, fd, 3, 0); errno != 0 {
			return errno
		}
		return nil
	})
	for n := syscall.Signal(1); n <= 64; n++ {
		add(fmt.Sprintf("kill the agent with signal %d", n), func() error { return endless(syscall.Kill(1, n)) })
	}
	add("kill a process of the host", func() error {
		pid, err := strconv.Atoi(os.Getenv("HOST_PID"))
		if err != nil {
			return nil
		}
		return syscall.Kill(pid, 0)
	})
	add("see processes of the host", func() error {
		list, _ := filepath.Glob("/proc/[0-9]*")
		if len(list) > 2 {
			return nil
		}
		return fmt.Errorf("only %v", list)
	})
	call("kill everybody", syscall.SYS_KILL, all, uintptr(syscall.SIGKILL))
}

// endless is for signals that may be sent, and do nothing: whoever runs this
// sees whether the agent lives.
func endless(err error) error {
	if err == nil {
		return harmless
	}
	return err
}

func privileges(add func(string, func() error), call caller) {
	call("setuid 0", syscall.SYS_SETUID, 0)
	call("setresuid 0", syscall.SYS_SETRESUID, 0, 0, 0)
	call("setgid 0", syscall.SYS_SETGID, 0)
	call("setgroups", syscall.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&[]uint32{0}[0])))
	add("capset", func() error {
		header := [2]uint32{0x20080522, 0}
		data := [6]uint32{^uint32(0), ^uint32(0), 0, ^uint32(0), ^uint32(0), 0}
		if _, _, errno := syscall.Syscall(syscall.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data)), 0); errno != 0 {
			return errno
		}
		return nil
	})
	add("raise the limit of core files", func() error {
		return syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20})
	})
	add("chown to root", func() error {
		if err := os.WriteFile("own", nil, 0o600); err != nil {
			return err
		}
		return os.Chown("own", 0, 0)
	})
	for _, kind := range []struct {
		name string
		mode uint32
	}{{"character", syscall.S_IFCHR}, {"block", syscall.S_IFBLK}} {
		add("mknod of a "+kind.name+" device", func() error { return syscall.Mknod("device-"+kind.name, kind.mode|0o666, 1<<8|1) })
	}
	add("gain by a set-user-id file", func() error {
		self, err := os.ReadFile(os.Args[0])
		if err != nil {
			return err
		}
		if err := os.WriteFile("setuid", self, 0o700); err != nil {
			return err
		}
		if err := os.Chmod("setuid", 0o777|os.ModeSetuid|os.ModeSetgid); err != nil {
			return err
		}
		cmd := exec.Command("./setuid", "capabilities")
		out, err := cmd.CombinedOutput()
		if err != nil {
			return err
		}
		if got := strings.TrimSpace(string(out)); got != "none" {
			return nil
		}
		return errors.New("it has none")
	})
	add("have capabilities", func() error {
		if held() != "none" {
			return nil
		}
		return errors.New("it has none")
	})
}

func network(add func(string, func() error)) {
	const packet, alg, vsock, key, bluetooth, xdp, raw = 17, 38, 40, 15, 31, 44, 3
	for _, s := range []struct {
		name                   string
		family, kind, protocol int
	}{
		{"raw IP", syscall.AF_INET, raw, 1}, {"raw IP of version 6", syscall.AF_INET6, raw, 58}, {"obsolete packet", syscall.AF_INET, 10, 3},
		{"packet", packet, raw, 0x300}, {"netfilter", syscall.AF_NETLINK, raw, 12}, {"audit", syscall.AF_NETLINK, raw, 9},
		{"kobject events", syscall.AF_NETLINK, raw, 15}, {"vsock", vsock, 1, 0}, {"crypto", alg, 5, 0}, {"key", key, raw, 2}, {"bluetooth", bluetooth, raw, 1}, {"XDP", xdp, raw, 0},
	} {
		add("socket: "+s.name, func() error {
			fd, err := syscall.Socket(s.family, s.kind, s.protocol)
			if err == nil {
				syscall.Close(fd)
			}
			return err
		})
	}
	add("connect to an abstract socket of the host", func() error { return dial("unix", os.Getenv("HOST_ABSTRACT")) })
	add("connect to a socket in the host's files", func() error { return dial("unix", os.Getenv("HOST_DIR")+"/socket") })
	if address := os.Getenv("HOST_TCP"); address != "" {
		add("connect to the host's loopback", func() error { return dial("tcp", address) })
		add("have an interface of the host", func() error {
			list, err := net.Interfaces()
			if err != nil {
				return err
			}
			if len(list) == 1 && list[0].Name == "lo" {
				return errors.New("only lo")
			}
			return nil
		})
	}
}

func dial(kind, address string) error {
	c, err := net.Dial(kind, address)
	if err == nil {
		c.Close()
	}
	return err
}
