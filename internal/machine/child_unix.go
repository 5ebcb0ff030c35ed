//go:build unix

package machine

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"nex"
)

// drain is how long output of a child that has ended is waited for.
const drain = time.Second

// ChildConfig says what process to start, and what is done around it.
type ChildConfig struct {
	ID  string    // the machine's
	Cmd *exec.Cmd // not started; its session, and what it prints, are not set
	Dir string    // the machine's directory, removed in the end
	Log *slog.Logger
	// Relay reads what the process prints until there is no more.
	Relay func(io.Reader)
	// Prepare changes the command last, before it starts, and returns what is
	// to be done once it has. May be nil.
	Prepare func(*exec.Cmd) (release func(), err error)
	// Place puts the process, which has just started, where it is limited. Its
	// error is the start's, and the process's end. May be nil.
	Place func(pid int) error
	// End ends and removes all else that there is of the machine, once the process
	// and its session have ended. After an error the directory stays, so that it
	// is tried again when the node starts. May be nil.
	End func() error
}

// Child is a process of the host that a machine is made of: in a session of its
// own, so that everything it started can be found when it is gone. It is safe
// for concurrent use.
type Child struct {
	cfg  ChildConfig
	gone chan struct{}
	kill sync.Once
}

// StartChild starts a process. An error leaves nothing of it, but the directory
// and what End ends.
func StartChild(cfg ChildConfig) (*Child, error) {
	c := &Child{cfg: cfg, gone: make(chan struct{})}
	cfg.Cmd.SysProcAttr = sessionAttr()
	cfg.Cmd.WaitDelay = drain
	if cfg.Prepare != nil {
		release, err := cfg.Prepare(cfg.Cmd)
		if err != nil {
			return nil, err
		}
		defer release()
	}
	output, input := io.Pipe()
	cfg.Cmd.Stdout, cfg.Cmd.Stderr = input, input
	started := make(chan error, 1)
	go c.run(started, output, input)
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

// run starts the process, waits for its end and removes every trace of it. It
// stays on one thread for all that time: the kernel kills a child that asked
// for it when the thread that forked it ends.
func (c *Child) run(started chan<- error, output *io.PipeReader, input *io.PipeWriter) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd, log := c.cfg.Cmd, c.cfg.Log
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	pid := cmd.Process.Pid
	if err := c.place(pid); err != nil { // no code of a workload has run yet
		_ = input.Close()      // a pipe's Close returns nil
		_ = cmd.Process.Kill() // it has just started
		_ = cmd.Wait()         // killed
		started <- err
		return
	}
	if err := volunteer(pid); err != nil {
		log.Warn("Node is as likely as this machine to be killed when memory runs out", "error", err)
	}
	started <- nil
	defer close(c.gone)
	var reader sync.WaitGroup
	reader.Go(func() { c.cfg.Relay(output) })
	if err := awaitExit(pid); err != nil {
		log.Error("Machine cannot be waited for", "error", err)
	}
	killSession(pid) // before the pid can be anybody else's
	stays := c.end()
	err := cmd.Wait()
	_ = input.Close() // a pipe's Close returns nil
	reader.Wait()
	log.Debug("Machine ended", "status", err)
	if stays != nil { // by the directory it is found when the node starts again
		log.Error("What is left of the machine cannot be ended now: it is tried again when the node starts", "error", stays)
	} else if err := RemoveAll(c.cfg.Dir); err != nil {
		log.Error("Machine directory cannot be removed", "error", err)
	}
}

func (c *Child) place(pid int) error {
	if c.cfg.Place == nil {
		return nil
	}
	return c.cfg.Place(pid)
}

func (c *Child) end() error {
	if c.cfg.End == nil {
		return nil
	}
	return c.cfg.End()
}

// ID is the machine's.
func (c *Child) ID() string { return c.cfg.ID }

// PID is the process's id, which is nobody else's until Gone is closed.
func (c *Child) PID() int { return c.cfg.Cmd.Process.Pid }

// SessionUsage tells what the processes of the session use that are alive.
func (c *Child) SessionUsage() (nex.Usage, error) { return sessionUsage(c.PID()) }

// Gone is closed when the process has ended and nothing of the machine is left.
func (c *Child) Gone() <-chan struct{} { return c.gone }

// Kill kills the process, once, and returns when it is gone or ctx ends. before is
// done first, by the first caller alone.
func (c *Child) Kill(ctx context.Context, before func()) error {
	c.kill.Do(func() {
		before()
		_ = c.cfg.Cmd.Process.Signal(syscall.SIGKILL) // fails only on a process that has ended
	})
	select {
	case <-c.gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of machine %s: %w", c.cfg.ID, ctx.Err())
	}
}
