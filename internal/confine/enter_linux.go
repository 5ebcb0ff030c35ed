package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// An agent that confines itself does so on its main thread. Inside, and wherever
// else it is process 1, that thread only reaps: processes whose parents have ended
// become its children, and never those that other threads started.
func init() {
	if os.Getenv(Variable) != "" || os.Getpid() == 1 {
		runtime.LockOSThread()
	}
}

// Main calls agent, inside of the sandbox that the node which started this
// process asks for, if it does. It must be called by the main function itself.
func Main(agent func(Sandbox) error) error {
	text := os.Getenv(Variable)
	if text == "" {
		return agent(Sandbox{})
	}
	var s spec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return fmt.Errorf("sandbox: %s: %w", Variable, err)
	}
	if s.Inside {
		return s.inside(agent)
	}
	if err := s.enter(); err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	return nil // not reached
}

// enter sets the sandbox up and executes the agent in it. It returns an error
// or not at all.
func (s *spec) enter() error {
	unix.CloseOnExec(s.Dir)
	unix.CloseOnExec(s.Agent)
	if err := unix.Fchdir(s.Dir); err != nil {
		return fmt.Errorf("enter machine directory: %w", err)
	}
	if !s.Plain {
		if err := s.isolate(); err != nil {
			return err
		}
	}
	if err := dropPrivileges(0); err != nil {
		return err
	}
	for _, part := range []struct {
		name  string
		apply func() error
	}{{"landlock", s.landlock}, {"seccomp", seccomp}} {
		if err := part.apply(); err != nil && !s.BestEffort {
			return fmt.Errorf("%s: %w", part.name, err)
		} else if err != nil {
			s.Missing = append(s.Missing, part.name+": "+err.Error())
		}
	}
	return s.execute()
}

// isolate is what needs capabilities: a root of its own, a name, loopback.
func (s *spec) isolate() error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := buildRoot(s.Network); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(s.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if s.Network != HostNetwork {
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("bring up loopback: %w", err)
		}
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// dropPrivileges gives up everything that this thread, and so what it executes,
// may do beyond its user, for good, but for the capabilities whose bits keep has.
func dropPrivileges(keep uint64) error {
	// 1 is the limit with which there is no core file, nor does the host's
	// program for core files start.
	core := unix.Rlimit{Cur: 1, Max: 1}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &core); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	for c := uintptr(0); ; c++ {
		if keep>>c&1 == 1 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) { // past the last one
			break
		}
		if err != nil && !errors.Is(err, unix.EPERM) { // not ours to drop; without privileges it cannot be gained
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var kept [2]unix.CapUserData
	for half := range kept {
		bits := uint32(keep >> (32 * half))
		kept[half] = unix.CapUserData{Effective: bits, Permitted: bits}
	}
	if err := unix.Capset(&header, &kept[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	return nil
}

// execute replaces this process by the agent inside.
func (s *spec) execute() error {
	path := fmt.Sprintf("/proc/self/fd/%d", s.Agent)
	s.Inside = true
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, Variable+"=") {
			env = append(env, v)
		}
	}
	// Losing privileges may have made the kernel forget it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("end with the node: %w", err)
	}
	err = syscall.Exec(path, os.Args, append(env, Variable+"="+string(text)))
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("execute agent: it is dynamically linked, and there are no libraries inside: use a static one, as make build makes (%w)", err)
	}
	return fmt.Errorf("execute agent: %w", err)
}
