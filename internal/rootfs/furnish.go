package rootfs

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
)

// Where an image has what is Nex's.
const (
	AgentPath  = "/usr/local/bin/agent" // the agent
	ScriptPath = "/etc/nex/boot.sh"     // runs once at boot, before the agent takes work
	maxSmall   = 1 << 20                // bytes of a file that is edited
)

// How an image starts its agent.
const (
	ByInit    = "init"    // the agent is the first process
	ByOpenRC  = "openrc"  // a service in the runlevel boot
	BySystemd = "systemd" // a unit
)

const nexUser = 1000

// prepare adds what programs need to a tree that may be empty: directories and
// users. It changes nothing if it was done before.
func (t *tree) prepare() error {
	t.layer++
	for _, d := range []struct {
		name  string
		mode  int64
		owner int
	}{
		{"/dev", 0o755, 0}, {"/proc", 0o555, 0}, {"/sys", 0o555, 0}, {"/run", 0o755, 0}, {"/tmp", 0o1777, 0},
		{"/etc", 0o755, 0}, {"/root", 0o700, 0}, {"/home", 0o755, 0}, {"/home/nex", 0o755, nexUser},
		{"/var", 0o755, 0}, {"/var/tmp", 0o1777, 0}, {"/usr/local/bin", 0o755, 0},
	} {
		if t.find(d.name, true) == nil {
			err := t.put(d.name, &node{kind: tar.TypeDir, mode: d.mode, uid: d.owner, gid: d.owner, modified: epoch})
			if err != nil {
				return err
			}
		}
	}
	// What builders of containers leave in these, and the modes they give them, are no guest's.
	for name, mode := range map[string]int64{"/tmp": 0o1777, "/var/tmp": 0o1777, "/proc": 0o555, "/sys": 0o555, "/dev": 0o755} {
		if n := t.find(name, true); n != nil && n.kind == tar.TypeDir {
			n.mode = mode
		}
	}
	for _, name := range []string{"/proc", "/sys", "/run"} {
		if n := t.find(name, true); n != nil && n.kind == tar.TypeDir {
			n.children = map[string]*node{}
		}
	}
	return t.addUsers()
}

// furnish adds what a guest needs to a tree that may be empty: what prepare does,
// the agent and what starts it. It returns how the agent is started.
func (t *tree) furnish(agent io.Reader, agentSize int64, script []byte) (start string, err error) {
	if err := t.prepare(); err != nil {
		return "", err
	}
	at, err := t.spool.add(agent, agentSize)
	if err != nil {
		return "", fmt.Errorf("read the agent: %w", err)
	}
	err = t.put(AgentPath, &node{kind: tar.TypeReg, mode: 0o755, at: at, size: agentSize, modified: epoch})
	if err != nil {
		return "", err
	}
	if script != nil {
		if err := t.write(ScriptPath, 0o755, script); err != nil {
			return "", err
		}
	}
	return t.addStart()
}

// write adds a small file that belongs to root.
func (t *tree) write(name string, mode int64, data []byte) error {
	at, err := t.spool.add(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	return t.put(name, &node{kind: tar.TypeReg, mode: mode, at: at, size: int64(len(data)), modified: epoch})
}

// read returns what a small file holds, nothing if it is not there.
func (t *tree) read(name string) ([]byte, error) {
	n := t.find(name, true)
	if n == nil || n.kind != tar.TypeReg {
		return nil, nil
	}
	if n.size > maxSmall {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", name, n.size, maxSmall)
	}
	r, err := t.open(n)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// addUsers adds the lines for root and nex where they are missing, and the files
// by which programs find names, theirs and others'.
func (t *tree) addUsers() error {
	for _, f := range []struct {
		name  string
		mode  int64
		lines []string
	}{
		{"/etc/passwd", 0o644, []string{"root:x:0:0:root:/root:/bin/sh", "nobody:x:65534:65534:nobody:/nonexistent:/bin/false", "nex:x:1000:1000:Nex:/home/nex:/bin/false"}},
		{"/etc/group", 0o644, []string{"root:x:0:", "nogroup:x:65534:", "nex:x:1000:"}},
		{"/etc/hosts", 0o644, []string{"127.0.0.1\tlocalhost", "::1\tlocalhost"}},
	} {
		text, err := t.read(f.name)
		if err != nil {
			return err
		}
		more := missing(string(text), f.lines)
		if more == "" {
			continue
		}
		if len(text) > 0 && text[len(text)-1] != '\n' {
			text = append(text, '\n')
		}
		if err := t.write(f.name, f.mode, append(text, more...)); err != nil {
			return err
		}
	}
	if t.find("/etc/nsswitch.conf", true) == nil {
		if err := t.write("/etc/nsswitch.conf", 0o644, []byte("passwd: files\ngroup: files\nhosts: files dns\n")); err != nil {
			return err
		}
	}
	// The image's own would name servers of where it was built; links lead to what may not run here.
	return t.write("/etc/resolv.conf", 0o644, []byte("# The agent writes this when the machine has a network.\n"))
}

// missing returns those lines whose first field no line of text has.
func missing(text string, lines []string) string {
	more := ""
	for _, line := range lines {
		field := line[:strings.IndexAny(line, ":\t")+1]
		if strings.HasPrefix(line, "::1") {
			field = "::1"
		}
		if !strings.HasPrefix(text, field) && !strings.Contains(text, "\n"+field) {
			more += line + "\n"
		}
	}
	return more
}
