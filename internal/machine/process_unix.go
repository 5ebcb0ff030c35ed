//go:build unix

package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"nex"
	"nex/internal/cgroup"
	"nex/internal/guest"
	"nex/internal/undo"
)

// drain is how long output of an agent that has ended is waited for.
const drain = time.Second

// process is an agent running as a child process in a session of its own, so
// that everything it started can be found when it is gone.
type process struct {
	id   string
	cmd  *exec.Cmd
	link net.Conn
	dir  string
	log  *slog.Logger
	encl enclosure
	gone chan struct{}
	kill sync.Once
}

var _ Launcher = (*Processes)(nil)

// Launch starts an agent with one end of a socket pair as its file descriptor
// 3, its own directory, and nothing of the node's environment.
func (p *Processes) Launch(_ context.Context, id string) (Machine, error) {
	var u undo.Stack
	defer u.Unwind()
	dir := filepath.Join(p.Dir, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make machine directory: %w", err)
	}
	u.Push(func() { _ = os.RemoveAll(dir) }) // the launch's own error is the one to report
	near, far, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("make guest link: %w", err)
	}
	defer far.Close()
	u.Push(func() { _ = near.Close() })

	encl, err := p.enclose(id)
	if err != nil {
		return nil, err
	}
	u.Push(encl.abandon)
	doors, doorsEnv := encl.inherit(4)

	m := &process{id: id, link: near, dir: dir, encl: encl, log: p.Log.With("machine", id), gone: make(chan struct{})}
	m.cmd = exec.Command(p.Agent)
	m.cmd.Dir = dir
	m.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir}
	if p.Cache != "" && p.Confine == nil {
		p.tidyCache()
		m.cmd.Env = append(m.cmd.Env, guest.CacheVariable+"="+p.Cache)
	}
	m.cmd.Env = append(m.cmd.Env, doorsEnv...)
	m.cmd.ExtraFiles = append([]*os.File{far}, doors...)
	m.cmd.SysProcAttr = sessionAttr()
	m.cmd.WaitDelay = drain
	if p.Confine != nil { // the last change to the command
		release, err := p.Confine.Apply(m.cmd, id)
		if err != nil {
			return nil, fmt.Errorf("confine agent: %w", err)
		}
		defer release()
	}
	output, input := io.Pipe()
	m.cmd.Stdout, m.cmd.Stderr = input, input
	started := make(chan error, 1)
	go m.run(started, output, input)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	u.Keep()
	return m, nil
}

// socketPair returns the node's end of a new link, and the agent's.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := socketPairFDs()
	if err != nil {
		return nil, nil, err
	}
	near, far := os.NewFile(uintptr(fds[0]), "link"), os.NewFile(uintptr(fds[1]), "link")
	conn, err := net.FileConn(near) // duplicates the descriptor
	if err := errors.Join(err, near.Close()); err != nil {
		return nil, nil, errors.Join(err, far.Close())
	}
	return conn, far, nil
}

// run starts the agent, waits for its end and removes every trace of it. It
// stays on one thread for all that time: the kernel kills a child that asked
// for it when the thread that forked it ends.
func (m *process) run(started chan<- error, output *io.PipeReader, input *io.PipeWriter) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := m.cmd.Start(); err != nil {
		started <- err
		return
	}
	pid := m.cmd.Process.Pid
	if err := m.encl.take(pid); err != nil { // no code of a workload has run yet
		_ = input.Close()        // a pipe's Close returns nil
		_ = m.cmd.Process.Kill() // it has just started
		_ = m.cmd.Wait()         // killed
		started <- err
		return
	}
	if err := volunteer(pid); err != nil {
		m.log.Warn("Node is as likely as this agent to be killed when memory runs out", "error", err)
	}
	started <- nil
	defer close(m.gone)
	var reader sync.WaitGroup
	reader.Go(func() { relay(m.log, output) })
	if err := awaitExit(pid); err != nil {
		m.log.Error("Agent cannot be waited for", "error", err)
	}
	killSession(pid) // before the pid can be anybody else's
	stays := m.encl.end()
	err := m.cmd.Wait()
	_ = input.Close() // a pipe's Close returns nil
	reader.Wait()
	m.log.Debug("Agent ended", "status", err)
	if stays != nil { // by the directory it is found when the node starts again
		m.log.Error("What is left of the machine cannot be ended now: it is tried again when the node starts", "error", stays)
	} else if err := removeAll(m.dir); err != nil {
		m.log.Error("Machine directory cannot be removed", "error", err)
	}
}

// removeAll is [os.RemoveAll] for files of a workload, which may have closed its
// directories to its own user.
func removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	// On the way down each is opened before it is read. What stays closed is what
	// the second attempt reports.
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

func (m *process) ID() string            { return m.id }
func (m *process) Link() net.Conn        { return m.link }
func (m *process) Gone() <-chan struct{} { return m.gone }

func (m *process) Limit(r nex.Resources) error {
	if m.encl.group == nil {
		return nil // the agent does what a process can
	}
	return m.encl.group.Limit(r)
}

func (m *process) Usage() (nex.Usage, error) {
	if m.encl.group == nil {
		return sessionUsage(m.cmd.Process.Pid)
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
	m.kill.Do(func() {
		_ = m.link.Close()
		_ = m.cmd.Process.Signal(syscall.SIGKILL) // fails only on a process that has ended
	})
	select {
	case <-m.gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of machine %s: %w", m.id, ctx.Err())
	}
}
