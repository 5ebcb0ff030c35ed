package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"nex/internal/confine"
)

// DefaultRunTimeout is how long a build step may take unless another time is
// asked for.
const DefaultRunTimeout = 10 * time.Minute

// stepEnv is the environment of build steps.
var stepEnv = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=dumb"}

// StepError means that a build step was run and failed.
type StepError struct {
	Step, Steps int    // its number, from 1 on, of how many
	Command     string // as it was given
	Reason      string // how it ended
	Last        string // the last lines that it printed, may be ""
}

func (e *StepError) Error() string {
	text := fmt.Sprintf("build step %d of %d, %q, %s", e.Step, e.Steps, e.Command, e.Reason)
	if e.Last != "" {
		text += ". The last it printed:\n" + e.Last
	}
	return text
}

// refuseSteps says why build steps cannot be run on this host, whatever the image.
func refuseSteps() error {
	err := confine.StepsRefused()
	if runtime.GOARCH != platform.Architecture {
		err = fmt.Errorf("images are for %s, and this host is %s", platform.Architecture, runtime.GOARCH)
	}
	if err != nil {
		return fmt.Errorf("a build step cannot be run here: %w; or have it in the base image already", err)
	}
	return nil
}

// runSteps runs the build steps that o names in the tree: in a directory below
// temp while they run, and from there back in the tree. What the steps wrote has
// the time 0, so that equal steps make equal images.
func (t *tree) runSteps(ctx context.Context, o Options, temp string) error {
	if err := t.prepare(); err != nil {
		return err
	}
	if sh := t.find("/bin/sh", true); sh == nil || sh.kind != tar.TypeReg || sh.mode&0o111 == 0 {
		return errors.New("a build step cannot be run in this image: it has no /bin/sh that is executable")
	}
	o.Progress("unpack for build steps", 0, 0)
	dir := filepath.Join(temp, "root")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	began, err := os.Stat(dir) // by the clock that files get their times from
	if err != nil {
		return err
	}
	if err := t.unpack(ctx, dir); err != nil {
		return fmt.Errorf("unpack the image for build steps: %w", err)
	}
	for i, command := range o.Run {
		o.Progress(fmt.Sprintf("run step %d of %d", i+1, len(o.Run)), 0, 0)
		if err := runStep(ctx, o, dir, i); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("build step %q: %w", command, err)
		}
	}
	o.Progress("read what build steps left", 0, 0)
	if err := t.pack(ctx, dir, began.ModTime()); err != nil {
		return fmt.Errorf("read what the build steps left: %w", err)
	}
	return os.RemoveAll(dir)
}

// runStep runs the step with that number, from 0 on.
func runStep(ctx context.Context, o Options, dir string, number int) error {
	limit := o.RunTimeout
	if limit == 0 {
		limit = DefaultRunTimeout
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out := &tail{to: o.Printed}
	step := confine.Step{Root: dir, Command: o.Run[number], Env: stepEnv, Network: confine.NoNetwork, Output: out}
	if o.RunNetwork {
		step.Network = confine.HostNetwork
	}
	err := step.Run(bounded)
	failed := &StepError{Step: number + 1, Steps: len(o.Run), Command: o.Run[number], Last: out.lines()}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case bounded.Err() != nil:
		failed.Reason = fmt.Sprintf("did not end within %s", limit)
	case errors.As(err, &exit):
		failed.Reason = "failed: " + exit.Error()
	case err != nil:
		return fmt.Errorf("a build step cannot be run here: %w", err)
	default:
		return nil
	}
	return failed
}

// tail hands on what is written to it, and keeps the end of it.
type tail struct {
	to   io.Writer // may be nil
	last []byte
}

// Bounds of what is told of a step that failed.
const (
	tailBytes = 4 << 10
	tailLines = 20
)

func (t *tail) Write(p []byte) (int, error) {
	t.last = append(t.last, p...)
	if over := len(t.last) - tailBytes; over > 0 {
		t.last = append(t.last[:0], t.last[over:]...)
	}
	if t.to == nil {
		return len(p), nil
	}
	return t.to.Write(p)
}

// lines returns the last lines that were written.
func (t *tail) lines() string {
	lines := bytes.Split(bytes.TrimRight(t.last, "\n"), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-tailLines):], []byte("\n")))
}
