package confine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stepCapabilities are what root has inside: what installing files takes, which
// is the same in containers. They reach no farther than the step's namespaces.
const stepCapabilities = 1<<unix.CAP_CHOWN | 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_FOWNER | 1<<unix.CAP_FSETID |
	1<<unix.CAP_KILL | 1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID | 1<<unix.CAP_SETPCAP | 1<<unix.CAP_SETFCAP

// resolvConf is the only file of the host that a step may have, and only to read.
const resolvConf = "/etc/resolv.conf"

// stepSpec is the content of [stepVariable].
type stepSpec struct {
	Command string
	Env     []string
	Network Network
}

// complaints is the descriptor where a step says why it cannot begin.
const complaints = 3

// StepsRefused says why no step can be run here, nil if nothing is known that
// keeps one from it.
func StepsRefused() error {
	switch {
	case os.Geteuid() != 0:
		return errors.New("it needs root, for only root can make files that belong to the users of an image")
	case Forbidden():
		return errors.New("it needs user namespaces, and " + most + " is 0: have the host's administrator change that")
	}
	return nil
}

// Run runs the step. It returns an *[exec.ExitError] if the command fails. When
// it returns, no process of the step is left, however it ended; it ends them when ctx ends.
// The main function of this program must begin with [BeStep].
func (s Step) Run(ctx context.Context) error {
	if err := StepsRefused(); err != nil {
		return err
	}
	text, err := json.Marshal(stepSpec{s.Command, s.Env, s.Network})
	if err != nil {
		return err
	}
	hear, say, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = hear.Close() }() // was only read
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = os.Args[:1:1]
	cmd.Dir, cmd.Env, cmd.ExtraFiles = s.Root, []string{stepVariable + "=" + string(text)}, []*os.File{say}
	cmd.Stdout, cmd.Stderr = s.Output, s.Output
	cmd.WaitDelay = 10 * time.Second // nothing inside is left to print then
	if cmd.SysProcAttr, err = stepAttr(s.Network); err != nil {
		return errors.Join(err, say.Close())
	}
	// The kernel ends the step with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("make namespaces: %w%s", err, Advice()), say.Close())
	}
	_ = say.Close()                                        // the child has it
	complaint, _ := io.ReadAll(io.LimitReader(hear, 4096)) // ends with the setup
	err = cmd.Wait()
	if len(complaint) > 0 {
		return errors.New(string(complaint))
	}
	return err
}

// stepAttr asks for namespaces whose users are those of this process's. Process
// 1 is alone when it ends: the kernel ends the others first.
func stepAttr(network Network) (*syscall.SysProcAttr, error) {
	uids, err := identity("/proc/self/uid_map")
	if err != nil {
		return nil, err
	}
	gids, err := identity("/proc/self/gid_map")
	if err != nil {
		return nil, err
	}
	flags := unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	if network != HostNetwork {
		flags |= unix.CLONE_NEWNET
	}
	return &syscall.SysProcAttr{
		Cloneflags: uintptr(flags), UidMappings: uids, GidMappings: gids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{}, Setsid: true, Pdeathsig: syscall.SIGKILL,
	}, nil
}

// identity returns a map of all ids that a map of ids has to themselves.
func identity(mapFile string) ([]syscall.SysProcIDMap, error) {
	f, err := os.Open(mapFile)
	if err != nil {
		return nil, fmt.Errorf("read the users of this process: %w", err)
	}
	defer func() { _ = f.Close() }() // was only read
	var ids []syscall.SysProcIDMap
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var inside, outside, size int
		if _, err := fmt.Sscan(lines.Text(), &inside, &outside, &size); err != nil {
			return nil, fmt.Errorf("read %s: %w", mapFile, err)
		}
		ids = append(ids, syscall.SysProcIDMap{ContainerID: inside, HostID: inside, Size: size})
	}
	return ids, nil
}

// BeStep must be called by the main function itself, first of all. In a process
// that [Step.Run] started it does not return, unless with an error: the process is to end then.
func BeStep() error {
	text := os.Getenv(stepVariable)
	if text == "" {
		return nil
	}
	unix.CloseOnExec(complaints)
	var s stepSpec
	err := json.Unmarshal([]byte(text), &s)
	if err == nil {
		err = s.enter()
	}
	_, _ = io.WriteString(os.NewFile(complaints, "complaints"), err.Error()) // the exit code tells, too
	return err
}

// enter enters the sandbox and executes the command. It returns an error or not at all.
func (s *stepSpec) enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := enterTree(s.Network); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte("build")); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if s.Network != HostNetwork {
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("bring up loopback: %w", err)
		}
	}
	if err := dropPrivileges(stepCapabilities); err != nil {
		return err
	}
	if err := seccomp(); err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("end with the builder: %w", err)
	}
	unix.Umask(0o022)
	err := syscall.Exec("/bin/sh", []string{"sh", "-c", s.Command}, s.Env)
	if errors.Is(err, unix.EACCES) {
		return fmt.Errorf("execute /bin/sh of the image: %w (it is not executable, or the directory of temporary files is on a file system without programs: set TMPDIR)", err)
	}
	return fmt.Errorf("execute /bin/sh of the image: %w", err)
}

// enterTree makes the current directory the root, with /dev and /proc over its
// own. These are made elsewhere first: links in the tree lead where they like, and
// must not be followed before it is the root.
func enterTree(network Network) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts private: %w", err)
	}
	tree, err := cloneTree(".", unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return err
	}
	mounts := map[string]int{}
	if network == HostNetwork {
		if mounts[resolvConf], err = cloneTree(resolvConf, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC); err != nil {
			return err
		}
	}
	if err := enterTmpfs(); err != nil {
		return err
	}
	if err := fillDev(); err != nil {
		return fmt.Errorf("fill /dev: %w", err)
	}
	if err := mountProc(); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, name := range []string{"dev", "proc"} {
		if mounts["/"+name], err = unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE); err != nil {
			return fmt.Errorf("clone mounts of /%s: %w", name, err)
		}
	}
	if err := cover(tree); err != nil {
		return fmt.Errorf("attach root: %w", err)
	}
	if err := pivot(); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	for path, mount := range mounts {
		if err := attachTo(mount, path); err != nil {
			return fmt.Errorf("attach %s: %w", path, err)
		}
	}
	return unix.Chdir("/")
}
