package confine

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inner is the user and group that agents and services have inside.
const inner = 1000

// The host's users for machines, where the node is root: numbers that
// systems give to nobody, nor to anybody's containers.
const (
	firstUser = 1_900_000_000
	userCount = 1 << 20
)

// setupCapabilities are what an agent has in its own user namespace until it has set
// the sandbox up.
var setupCapabilities = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP, unix.CAP_NET_ADMIN}

// Apply changes a command, which is about to start an agent in the machine
// directory that is its Dir, into one that starts it confined. It is the last
// change to make: it adds to the command's files, and what else the command has
// gets to the agent. release is for when the command has started, or has not.
func (c Config) Apply(cmd *exec.Cmd, name string) (release func(), err error) {
	return c.apply(cmd, spec{Name: name})
}

// ApplyProbe is [Config.Apply] for an agent that only prints a [Report] from
// inside.
func (c Config) ApplyProbe(cmd *exec.Cmd) (release func(), err error) {
	return c.apply(cmd, spec{Name: "probe", Probe: true})
}

func (c Config) apply(cmd *exec.Cmd, s spec) (release func(), err error) {
	dir, err := os.Open(cmd.Dir)
	if err != nil {
		return nil, fmt.Errorf("open machine directory: %w", err)
	}
	agent, err := os.Open(cmd.Path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open agent: %w", err), dir.Close())
	}
	release = func() { _, _ = dir.Close(), agent.Close() } // they were only read
	const first = 3                                        // number of the first extra file
	s.Dir = first + len(cmd.ExtraFiles)
	s.Agent = s.Dir + 1
	s.Network, s.BestEffort, s.Plain = c.Network, c.BestEffort, c.Plain
	cmd.ExtraFiles = append(cmd.ExtraFiles, dir, agent)
	text, err := json.Marshal(s)
	if err != nil {
		release()
		return nil, err
	}
	cmd.Env = append(cmd.Env, Variable+"="+string(text))
	// By its descriptor: those that the agent will be may not enter the
	// directories on the way to it.
	cmd.Args = append([]string{filepath.Base(cmd.Path)}, cmd.Args[1:]...)
	cmd.Path = fmt.Sprintf("/proc/self/fd/%d", s.Agent)
	if c.Plain {
		return release, nil
	}
	cmd.Env = append(cmd.Env, "PATH=/usr/local/bin:/usr/bin:/bin", "HOME="+workDir, "TMPDIR="+tmpDir) // later ones count
	if err := c.separate(cmd); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// separate gives a command namespaces and a user of their own. The namespace of
// mounts comes later: the agent enters the machine directory first.
func (c Config) separate(cmd *exec.Cmd) error {
	attr := cmd.SysProcAttr
	attr.Cloneflags |= unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if c.Network != HostNetwork {
		attr.Cloneflags |= unix.CLONE_NEWNET
	}
	attr.AmbientCaps = setupCapabilities
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		if user := pickUser(); user != 0 {
			if err := os.Chown(cmd.Dir, user, user); err != nil {
				return fmt.Errorf("give machine directory to its user: %w", err)
			}
			uid, gid = user, user
		}
		setgroups, err := os.ReadFile("/proc/self/setgroups")
		attr.GidMappingsEnableSetgroups = err == nil && strings.TrimSpace(string(setgroups)) == "allow"
		attr.Credential = &syscall.Credential{Uid: inner, Gid: inner, NoSetGroups: !attr.GidMappingsEnableSetgroups}
	}
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: inner, HostID: uid, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: inner, HostID: gid, Size: 1}}
	cmd.Dir = "/" // the machine directory's parents may be closed to its user
	return nil
}

// pickUser returns a user and group of the host for one machine, or 0 if this
// process, in a user namespace itself, has too few to choose from.
func pickUser() int {
	first, count := freeUsers("/proc/self/uid_map")
	if f, c := freeUsers("/proc/self/gid_map"); f > first || c < count {
		first, count = f, c
	}
	if count == 0 {
		return 0
	}
	return first + rand.IntN(count)
}

// freeUsers returns a range of ids that a map of ids has, and nobody uses.
func freeUsers(mapFile string) (first, count int) {
	f, err := os.Open(mapFile)
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var inside, outside, size int
		if _, err := fmt.Sscan(lines.Text(), &inside, &outside, &size); err != nil {
			continue
		}
		if inside <= firstUser && inside+size >= firstUser+userCount {
			return firstUser, userCount
		}
		const some = 4096
		if size >= 4*some && inside+size > first {
			first, count = inside+size-2*some, some // "nobody" is among the last
		}
	}
	return first, count
}

// most is where the kernel says how many user namespaces there may be.
const most = "/proc/sys/user/max_user_namespaces"

// Forbidden reports whether nobody may make user namespaces here. Whoever knows
// need not try: package syscall keeps two files open for each clone that fails.
func Forbidden() bool {
	value, err := os.ReadFile(most)
	return err == nil && strings.TrimSpace(string(value)) == "0"
}

// Advice says what on this host forbids namespaces, to be read after an error;
// "" if nothing that is known does.
func Advice() string {
	for _, knob := range []struct{ path, bad string }{
		{most, "0"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"},
	} {
		value, err := os.ReadFile(knob.path)
		if err == nil && strings.TrimSpace(string(value)) == knob.bad {
			return fmt.Sprintf("; %s is %s, which forbids user namespaces: have the host's administrator change that, or run the node as root", knob.path, knob.bad)
		}
	}
	return "; user namespaces may be forbidden here, as they are in most containers: run the node outside of one, or give the container what it needs to make them"
}
