//go:build unix

package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"nex"
	"nex/internal/cgroup"
	"nex/internal/direct"
	"nex/internal/guest"
	"nex/internal/undo"
)

// process is an agent running as a child process.
type process struct {
	*Child
	link net.Conn
	encl enclosure
}

var _ Launcher = (*Processes)(nil)

// Launch starts an agent with the far ends of two pipes as its file descriptors 3
// and 4, its own directory, and nothing of the node's environment.
func (p *Processes) Launch(_ context.Context, id string) (Machine, error) {
	var u undo.Stack
	defer u.Unwind()
	dir := filepath.Join(p.Dir, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make machine directory: %w", err)
	}
	u.Push(func() { _ = os.RemoveAll(dir) }) // the launch's own error is the one to report
	near, far, err := direct.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make guest link: %w", err)
	}
	defer func() { _, _ = far[0].Close(), far[1].Close() }() // the agent has them
	u.Push(func() { _ = near.Close() })

	encl, err := p.enclose(id)
	if err != nil {
		return nil, err
	}
	u.Push(encl.abandon)
	cmd := p.command(dir, far, encl)
	log := p.Log.With("machine", id)
	child, err := StartChild(ChildConfig{
		ID: id, Cmd: cmd, Dir: dir, Log: log, Relay: func(r io.Reader) { relay(log, r) },
		Prepare: func(cmd *exec.Cmd) (func(), error) { return p.confine(cmd, id) },
		Place:   encl.take, End: encl.end,
	})
	if err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	u.Keep()
	return &process{Child: child, link: near, encl: encl}, nil
}

// command is an agent's, whose link is far, to read from and to write to, and whose directory dir.
func (p *Processes) command(dir string, far [2]*os.File, encl enclosure) *exec.Cmd {
	doors, doorsEnv := encl.inherit(5)
	cmd := exec.Command(p.Agent)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir}
	if p.Cache != "" && p.Confine == nil {
		p.tidyCache()
		cmd.Env = append(cmd.Env, guest.CacheVariable+"="+p.Cache)
	}
	cmd.Env = append(cmd.Env, doorsEnv...)
	cmd.ExtraFiles = append(far[:], doors...)
	return cmd
}

// confine puts an agent that is to start into the OS sandbox, if that is wanted.
func (p *Processes) confine(cmd *exec.Cmd, id string) (release func(), err error) {
	if p.Confine == nil {
		return func() {}, nil
	}
	release, err = p.Confine.Apply(cmd, id)
	if err != nil {
		return nil, fmt.Errorf("confine agent: %w", err)
	}
	return release, nil
}

// SocketPair returns the node's end of a new link, and the one that a child
// inherits.
func SocketPair() (net.Conn, *os.File, error) {
	fds, err := socketPairFDs()
	if err != nil {
		return nil, nil, err
	}
	near, far := os.NewFile(uintptr(fds[0]), "link"), os.NewFile(uintptr(fds[1]), "link")
	conn, err := net.FileConn(near) // duplicates the descriptor
	if err := errors.Join(err, near.Close()); err != nil {
		return nil, nil, errors.Join(err, far.Close())
	}
	return direct.Wrap(conn), far, nil
}

func (m *process) Link() net.Conn { return m.link }

func (m *process) Admit(r nex.Resources) error {
	if m.encl.group == nil {
		return nil // the agent does what a process can
	}
	return m.encl.group.Limit(r)
}

func (m *process) Usage() (nex.Usage, error) {
	if m.encl.group == nil {
		return m.SessionUsage()
	}
	return m.encl.group.Usage()
}

func (m *process) Hits() (cgroup.Hits, error) {
	if m.encl.group == nil {
		return cgroup.Hits{}, nil
	}
	return m.encl.group.Hits()
}

func (m *process) Destroy(ctx context.Context) error {
	return m.Kill(ctx, func() { _ = m.link.Close() })
}
