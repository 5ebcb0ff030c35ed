package rootfs

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strconv"
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

// The user of guests that is nobody in particular.
const (
	nexName = "nex"
	nexUser = 1000 // and the group
)

// prepare adds what programs need to a tree that may be empty: directories and
// users. It changes nothing if it was done before.
func (t *tree) prepare() error {
	t.layer++
	uid, gid, err := t.addUsers()
	if err != nil {
		return err
	}
	for _, d := range []struct {
		name     string
		mode     int64
		uid, gid int
	}{
		{"/dev", 0o755, 0, 0}, {"/proc", 0o555, 0, 0}, {"/sys", 0o555, 0, 0}, {"/run", 0o755, 0, 0}, {"/tmp", 0o1777, 0, 0},
		{"/etc", 0o755, 0, 0}, {"/root", 0o700, 0, 0}, {"/home", 0o755, 0, 0}, {"/home/nex", 0o755, uid, gid},
		{"/var", 0o755, 0, 0}, {"/var/tmp", 0o1777, 0, 0}, {"/usr/local/bin", 0o755, 0, 0},
	} {
		if t.find(d.name, true) == nil {
			err := t.put(d.name, &node{kind: tar.TypeDir, mode: d.mode, uid: d.uid, gid: d.gid, modified: epoch})
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
	return nil
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
// by which programs find names, theirs and others'. It returns who nex is: the
// image's own user of that name, else user 1000, and in the image's own group of that
// name, else in group 1000. Who has these numbers in the image keeps them: nex is
// then a second name for the same, behind theirs.
func (t *tree) addUsers() (uid, gid int, err error) {
	passwd, err := t.read("/etc/passwd")
	if err != nil {
		return 0, 0, err
	}
	group, err := t.read("/etc/group")
	if err != nil {
		return 0, 0, err
	}
	uid, gid = nexUser, nexUser
	if f := account(group, 0, nexName); f != nil {
		gid = number(f[2], gid)
	}
	if f := account(passwd, 0, nexName); f != nil {
		uid, gid = number(f[2], uid), number(f[3], gid)
	}
	for _, f := range []struct {
		name  string
		mode  int64
		lines []string
	}{
		{"/etc/passwd", 0o644, []string{"root:x:0:0:root:/root:/bin/sh", "nobody:x:65534:65534:nobody:/nonexistent:/bin/false", fmt.Sprintf("nex:x:%d:%d:Nex:/home/nex:/bin/false", uid, gid)}},
		{"/etc/group", 0o644, []string{"root:x:0:", "nogroup:x:65534:", fmt.Sprintf("nex:x:%d:", gid)}},
		{"/etc/hosts", 0o644, []string{"127.0.0.1\tlocalhost", "::1\tlocalhost"}},
	} {
		if err := t.addLines(f.name, f.mode, f.lines); err != nil {
			return 0, 0, err
		}
	}
	if t.find("/etc/nsswitch.conf", true) == nil {
		if err := t.write("/etc/nsswitch.conf", 0o644, []byte("passwd: files\ngroup: files\nhosts: files dns\n")); err != nil {
			return 0, 0, err
		}
	}
	// The image's own would name servers of where it was built; links lead to what may not run here.
	return uid, gid, t.write("/etc/resolv.conf", 0o644, []byte("# The agent writes this when the machine has a network.\n"))
}

// addLines adds those lines to a file whose first field none of its lines has.
func (t *tree) addLines(name string, mode int64, lines []string) error {
	text, err := t.read(name)
	if err != nil {
		return err
	}
	more := missing(string(text), lines)
	if more == "" {
		return nil
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	return t.write(name, mode, append(text, more...))
}

// namesake returns the image's user that nex is a second name for, "" if there is
// none.
func (t *tree) namesake() (string, error) {
	passwd, err := t.read("/etc/passwd")
	if err != nil {
		return "", err
	}
	nex := account(passwd, 0, nexName)
	if nex == nil {
		return "", nil
	}
	if first := account(passwd, 2, nex[2])[0]; first != nexName {
		return first, nil
	}
	return "", nil
}

// account returns the fields of the first line of passwd or group in which the
// field with that number is value, at least four; nil if there is none.
func account(text []byte, field int, value string) []string {
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimRight(line, "\n")+":::", ":")
		if f[field] == value {
			return f
		}
	}
	return nil
}

// number returns the number that a field says, and otherwise instead.
func number(field string, instead int) int {
	n, err := strconv.ParseUint(field, 10, 32)
	if err != nil {
		return instead
	}
	return int(n)
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
