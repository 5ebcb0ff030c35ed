package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"
)

// subtle are ways around what the others meet head on.
func subtle(add func(string, func() error), call caller) {
	sidesteps(add)
	overfill(add)
	add("have the host's program for core files started", func() error {
		// With a limit of 1 the kernel does not; with one of 0 it does.
		var l syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &l); err != nil {
			return err
		}
		if l.Max != 1 {
			return nil
		}
		return errors.New("the limit of core files forbids it")
	})
	for _, path := range []string{"/proc/1/exe", "/proc/1/task/1/environ", "/proc/1/task/1/mem", "/proc/1/pagemap", "/proc/1/syscall", "/proc/1/fdinfo", "/proc/1/task/1/fd", "/proc/1/timers", "/proc/1/personality"} {
		add("read "+path, func() error { return read(path) })
	}
	add("write the agent's program", func() error { return overwrite("/proc/1/exe") })
	add("stop the agent by a signal of a file", func() error { return endless(signalByFile(syscall.SIGSTOP)) })
	add("kill the agent by a signal of a file", func() error { return endless(signalByFile(syscall.SIGKILL)) })
	const queued = 0xffffffff // si_code of sigqueue
	info := [16]uint64{uint64(syscall.SIGTERM), queued}
	call("queue a signal for the agent", syscall.SYS_RT_SIGQUEUEINFO, 1, uintptr(syscall.SIGTERM), uintptr(unsafe.Pointer(&info)))
	call("a timer that signals the agent", syscall.SYS_TIMER_CREATE, 0, uintptr(unsafe.Pointer(&[8]uint64{0, uint64(syscall.SIGKILL) | 4<<32, 1})), uintptr(unsafe.Pointer(new(uint64))))
	call("change the security module's label", 460, 100, uintptr(unsafe.Pointer(&[4]uint64{100, 0, 32})), 32, 0)
	call("allow new privileges", syscall.SYS_PRCTL, 38, 0)
	call("map the address 0", syscall.SYS_MMAP, 0, 4096, 3, 0x32, ^uintptr(0), 0)
	call("a negative nice value", syscall.SYS_SETPRIORITY, 0, 0, ^uintptr(4))
	call("real-time scheduling", syscall.SYS_SCHED_SETSCHEDULER, 0, 1, uintptr(unsafe.Pointer(&[]int32{1}[0])))
}

// sidesteps are sockets that are none of TCP and UDP. Those of a sandbox work as
// ever.
func sidesteps(add func(string, func() error)) {
	for _, s := range [][2]int{{syscall.AF_INET, 0}, {syscall.AF_INET, syscall.IPPROTO_TCP}, {syscall.AF_INET6, syscall.IPPROTO_TCP}, {syscall.AF_UNIX, 0}} {
		add(fmt.Sprintf("need more than a stream of family %d and protocol %d", s[0], s[1]), func() error {
			fd, err := syscall.Socket(s[0], syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, s[1])
			if err != nil {
				fmt.Println(err)
				return nil
			}
			return errors.Join(syscall.Close(fd), harmless)
		})
	}
	const stream, datagram, packets = syscall.SOCK_STREAM, syscall.SOCK_DGRAM, syscall.SOCK_SEQPACKET
	for _, s := range []struct {
		name                   string
		family, kind, protocol int
	}{
		{"MPTCP", syscall.AF_INET, stream, 262}, {"MPTCP of version 6", syscall.AF_INET6, stream, 262}, {"UDP-Lite", syscall.AF_INET, datagram, 136},
		{"SCTP", syscall.AF_INET, stream, 132}, {"SCTP with records", syscall.AF_INET, packets, 132}, {"DCCP", syscall.AF_INET, 6, 33},
		{"L2TP", syscall.AF_INET, datagram, 115}, {"SMC", syscall.AF_INET, stream, 256}, {"SMC by its family", 43, stream, 0}, {"TIPC", 30, stream, 0}, {"RDS", 21, packets, 0},
	} {
		add("socket: "+s.name, func() error {
			fd, err := syscall.Socket(s.family, s.kind, s.protocol)
			if err == nil {
				syscall.Close(fd)
			}
			return err
		})
	}
	for name, family := range map[string]int{"TIPC": 30, "IP": syscall.AF_INET, "netlink": syscall.AF_NETLINK} {
		add("a pair of sockets: "+name, func() error {
			fds, err := syscall.Socketpair(family, stream, 0)
			if errors.Is(err, syscall.EOPNOTSUPP) {
				return nil // both were made
			}
			if err == nil {
				_, _ = syscall.Close(fds[0]), syscall.Close(fds[1])
			}
			return err
		})
	}
}

// overfill tries to have more of the host's memory in files than there may be.
func overfill(add func(string, func() error)) {
	add("fill the memory for files", func() error {
		defer os.Remove("/dev/shm/large")
		return os.WriteFile("/dev/shm/large", make([]byte, 65<<20), 0o600)
	})
	add("fill the memory for files with empty ones", func() error {
		if err := os.Mkdir("/dev/shm/many", 0o700); err != nil {
			return err
		}
		defer os.RemoveAll("/dev/shm/many")
		for n := range 40_000 {
			if err := syscall.Mknod(fmt.Sprint("/dev/shm/many/", n), syscall.S_IFREG|0o600, 0); err != nil {
				return err
			}
		}
		return nil
	})
}

// signalByFile has the kernel signal the agent when a pipe may be read.
func signalByFile(signal syscall.Signal) error {
	const setSignal = 10
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fds[0])
	defer syscall.Close(fds[1])
	for _, set := range [][2]uintptr{{syscall.F_SETOWN, 1}, {setSignal, uintptr(signal)}, {syscall.F_SETFL, syscall.O_ASYNC}} {
		if _, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(fds[0]), set[0], set[1]); errno != 0 {
			return errno
		}
	}
	_, err = syscall.Write(fds[1], []byte("x"))
	return err
}
