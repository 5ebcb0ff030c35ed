package confine

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// lastSignal is the highest number a signal has.
const lastSignal = 64

// inside runs an agent that is confined.
func (s *spec) inside(agent func(Sandbox) error) error {
	if err := os.Unsetenv(Variable); err != nil {
		return err
	}
	if s.Probe {
		return json.NewEncoder(os.Stdout).Encode(Report{Missing: s.Missing})
	}
	rename(os.Args[0])
	return First(func() error { return agent(s.sandbox()) })
}

// First runs agent, as process 1 has to: it buries the orphans that become its
// children, and no signal ends it. It must be called by the main function itself.
func First(agent func() error) error {
	ended := survive()
	done := make(chan error, 1)
	go func() { done <- agent() }()
	for {
		select {
		case <-ended:
			reap()
		case err := <-done:
			return err
		}
	}
}

// survive keeps services from ending their agent. Process 1 gets no signal from
// inside that it does not handle, but Go handles most, by ending the process.
// The channel tells that a process has ended.
func survive() <-chan os.Signal {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	var others []os.Signal
	for n := syscall.Signal(1); n <= lastSignal; n++ {
		switch n {
		case unix.SIGCHLD, unix.SIGURG: // the latter is between Go's threads
		default:
			others = append(others, n)
		}
	}
	signal.Notify(make(chan os.Signal, 1), others...) // nobody reads it: they are dropped
	for n := syscall.Signal(1); n <= lastSignal; n++ {
		ignoreUnhandled(n)
	}
	return ended
}

// ignoreUnhandled has a signal ignored that Go does not handle: the kernel drops
// those that are not for process 1 only while its first thread does not block
// them, which Go's threads do for moments.
func ignoreUnhandled(n syscall.Signal) {
	if n == unix.SIGKILL || n == unix.SIGSTOP || n == unix.SIGCHLD {
		return
	}
	const byDefault, ignored, maskSize = 0, 1, 8
	type action [4]uint64 // of the kernel: the handler comes first
	var old, ignore action
	ignore[0] = ignored
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(n), 0, uintptr(unsafe.Pointer(&old)), maskSize, 0, 0)
	if errno == 0 && old[0] == byDefault {
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(n), uintptr(unsafe.Pointer(&ignore)), 0, maskSize, 0, 0) // cannot fail where asking did not
	}
}

// reap buries the processes whose parents have ended. They are this thread's
// children; those that native services began with are other threads'.
func reap() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WNOTHREAD, nil)
		if pid <= 0 && err != unix.EINTR {
			return
		}
	}
}

// sandbox is what the agent is told.
func (s *spec) sandbox() Sandbox {
	box := Sandbox{Service: s.confineService}
	if s.Network != HostNetwork {
		box.Notice = noNetwork
	}
	return box
}

func (s *spec) confineService(dir string) error {
	// Its memory, environment and files are nobody's business from here on.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("hide agent: %w", err)
	}
	if err := s.landlockService(dir); err != nil && !s.BestEffort { // what is missing was said when the node started
		return fmt.Errorf("landlock: %w", err)
	}
	return nil
}

// rename shows people the program's name: the kernel took the number of its file.
func rename(path string) {
	name, err := unix.BytePtrFromString(filepath.Base(path))
	if err != nil {
		return
	}
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0) // it is only for show
	runtime.KeepAlive(name)
}
