package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/rs/xid"

	"nex/internal/confine"
)

// probeTime bounds how long an agent may take to confine itself.
const probeTime = 30 * time.Second

// Probe tries the sandbox with an agent that confines itself, says what could
// not be applied and ends. It is an error if that is anything and best effort
// is not enough. Where there can be no namespaces, machines do without from now
// on if best effort is.
func (p *Processes) Probe(ctx context.Context) (missing []string, err error) {
	missing, err = p.probe(ctx)
	if err == nil || !p.Confine.BestEffort || p.Confine.Plain {
		return missing, err
	}
	plain := *p.Confine
	plain.Plain = true
	second := Processes{Agent: p.Agent, Dir: p.Dir, Log: p.Log, Confine: &plain}
	missing, plainErr := second.probe(ctx)
	if plainErr != nil {
		return nil, err
	}
	p.Confine = &plain
	return append([]string{"namespaces: " + err.Error()}, missing...), nil
}

func (p *Processes) probe(ctx context.Context) ([]string, error) {
	if !p.Confine.Plain && confine.Forbidden() {
		return nil, fmt.Errorf("there can be no namespaces%s", confine.Advice())
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	dir := filepath.Join(p.Dir, xid.New().String())
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make machine directory: %w", err)
	}
	defer os.RemoveAll(dir) // only its own user could be in the way
	cmd := exec.CommandContext(ctx, p.Agent)
	cmd.Dir, cmd.SysProcAttr, cmd.WaitDelay = dir, sessionAttr(), drain
	var output, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &words
	release, err := p.Confine.ApplyProbe(cmd)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := run(cmd); err != nil {
		if said := strings.TrimSpace(words.String()); said != "" {
			return nil, fmt.Errorf("%s", strings.TrimPrefix(said, AgentName()+": "))
		}
		return nil, fmt.Errorf("start agent in namespaces of its own: %w%s", err, confine.Advice())
	}
	var report confine.Report
	if err := json.Unmarshal(output.Bytes(), &report); err != nil {
		return nil, fmt.Errorf("agent %s confines itself otherwise than this node wants, it may be of another version: %w", p.Agent, err)
	}
	return report.Missing, nil
}

// run runs a command to its end on one thread: the kernel kills a child that
// asked for it when the thread that forked it ends.
func run(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- cmd.Run()
	}()
	return <-done
}
