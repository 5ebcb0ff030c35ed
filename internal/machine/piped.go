package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"nex"
	"nex/internal/cgroup"
	"nex/internal/guest"
	"nex/internal/undo"
)

// Piped launches agents as [Processes] does, with the guest link over their
// standard input and output: for systems without socket pairs. It has nothing
// of one system alone but [contain], which sees to it that what an agent started
// ends with it where the system offers that.
type Piped struct{ *Processes }

// lastOutput is how long output of an agent that has ended is waited for.
const lastOutput = time.Second

// pipedProcess is an agent whose link is pipes.
type pipedProcess struct {
	id   string
	cmd  *exec.Cmd
	link net.Conn
	dir  string
	log  *slog.Logger
	gone chan struct{}
	kill sync.Once
}

var (
	_ Launcher = Piped{}
	_ Machine  = (*pipedProcess)(nil)
)

// Launch starts an agent with its own directory, and nothing of the node's
// environment but what programs of this system cannot do without.
func (p Piped) Launch(_ context.Context, id string) (Machine, error) {
	var u undo.Stack
	defer u.Unwind()
	dir := filepath.Join(p.Dir, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make machine directory: %w", err)
	}
	u.Push(func() { _ = os.RemoveAll(dir) }) // the launch's own error is the one to report
	m := &pipedProcess{id: id, dir: dir, log: p.Log.With("machine", id), gone: make(chan struct{})}
	m.cmd = exec.Command(p.Agent)
	m.cmd.Dir, m.cmd.Env = dir, p.environment(dir)
	m.cmd.WaitDelay = lastOutput
	far, err := m.connect()
	if err != nil {
		return nil, fmt.Errorf("make guest link: %w", err)
	}
	defer far()
	u.Push(func() { _ = m.link.Close() })
	output, input := io.Pipe()
	m.cmd.Stderr = input
	if err := m.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	release, err := contain(m.cmd.Process)
	if err != nil {
		m.log.Warn("What this agent starts may outlive it", "error", err)
	}
	go m.run(release, output, input)
	u.Keep()
	return m, nil
}

// environment is that of an agent.
func (p Piped) environment(dir string) []string {
	env := []string{guest.LinkVariable + "=" + guest.LinkPipes, "PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir}
	if runtime.GOOS == "windows" {
		env = append(env, "USERPROFILE="+dir, "TEMP="+dir, "TMP="+dir)
		for _, name := range []string{"SystemRoot", "SystemDrive", "PATHEXT"} {
			env = append(env, name+"="+os.Getenv(name))
		}
	}
	if p.Cache != "" {
		p.tidyCache()
		env = append(env, guest.CacheVariable+"="+p.Cache)
	}
	return env
}

// connect makes the link and gives the far end to the agent that is to start;
// far drops it here.
func (m *pipedProcess) connect() (far func(), err error) {
	in, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	agentIn, agentOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close(), out.Close())
	}
	m.link = guest.NewPipes(in, agentOut)
	m.cmd.Stdin, m.cmd.Stdout = agentIn, out
	return func() { _, _ = agentIn.Close(), out.Close() }, nil
}

// run waits for the agent's end and removes every trace of it.
func (m *pipedProcess) run(release func(), output *io.PipeReader, input *io.PipeWriter) {
	defer close(m.gone)
	var reader sync.WaitGroup
	reader.Go(func() { relay(m.log, output) })
	err := m.cmd.Wait()
	release()
	_ = input.Close() // a pipe's Close returns nil
	reader.Wait()
	m.log.Debug("Agent ended", "status", err)
	if err := os.RemoveAll(m.dir); err != nil {
		m.log.Error("Machine directory cannot be removed", "error", err)
	}
}

// Admit does nothing: where links are pipes there are no cgroups.
func (m *pipedProcess) Admit(nex.Resources) error { return nil }

// Usage is not known here.
func (m *pipedProcess) Usage() (nex.Usage, error) {
	return nex.Usage{}, nex.Errorf(nex.Unsupported, "what a machine uses is not known on this system")
}

// Hits are never counted here.
func (m *pipedProcess) Hits() (cgroup.Hits, error) { return cgroup.Hits{}, nil }

func (m *pipedProcess) ID() string            { return m.id }
func (m *pipedProcess) Link() net.Conn        { return m.link }
func (m *pipedProcess) Gone() <-chan struct{} { return m.gone }

func (m *pipedProcess) Destroy(ctx context.Context) error {
	m.kill.Do(func() {
		_ = m.link.Close()
		_ = m.cmd.Process.Kill() // fails only on a process that has ended
	})
	select {
	case <-m.gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of machine %s: %w", m.id, ctx.Err())
	}
}
