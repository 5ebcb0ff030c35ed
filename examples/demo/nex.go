//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// nexPath is the program that the demo shows.
	nexPath = "bin/nex"
	// grace is how long an interrupted program may take to end.
	grace = 20 * time.Second
)

// build compiles the examples in Go into dir.
func build(ctx context.Context, dir string) error {
	for _, b := range []struct{ target, output, source string }{
		{"GOOS=wasip1 GOARCH=wasm", "echo.wasm", "./examples/wasm/echo"},
		{"CGO_ENABLED=0", "echoservice", "./examples/native/echoservice"},
	} {
		output := filepath.Join(dir, b.output)
		fmt.Printf("$ %s go build -trimpath -o %s %s\n", b.target, output, b.source)
		cmd := program(ctx, "go", "build", "-trimpath", "-o", output, b.source)
		cmd.Env = append(append(os.Environ(), "GOTMPDIR="+dir), strings.Fields(b.target)...)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return because(ctx, fmt.Errorf("build %s: %w", b.source, err))
		}
	}
	return nil
}

// program prepares a program to run in a process group of its own, so that
// Ctrl-C reaches it through ctx only, and once. When ctx ends it is
// interrupted, and killed after a while.
func program(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = grace
	return cmd
}

// because adds to err why ctx has ended, if it has.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// nex is how to use a running "nex dev".
type nex struct {
	url  string
	env  []string // of nex programs
	conn *nats.Conn
}

// withNex runs "nex dev" while work does its work, whose context ends when
// nex dev does.
func withNex(ctx context.Context, dir string, work func(context.Context, *nex) error) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	n := &nex{url: "nats://127.0.0.1:" + port}
	n.env = environment(dir, n.url)
	fmt.Printf("$ export NATS_URL=%s\n$ nex dev --port %s &\n", n.url, port)

	outer := ctx
	ctx, end := context.WithCancelCause(ctx)
	var log bytes.Buffer
	dev := program(ctx, nexPath, "dev", "--port", port, "--state-dir", filepath.Join(dir, "state"))
	dev.Env, dev.Stdout, dev.Stderr = n.env, &log, &log
	if err := dev.Start(); err != nil {
		err = because(ctx, fmt.Errorf("start nex dev: %w", err))
		end(nil)
		return err
	}
	ended := make(chan error, 1)
	go func() {
		err := dev.Wait()
		end(errors.New("nex dev has ended"))
		ended <- err
	}()
	if err = n.connect(ctx); err == nil {
		err = work(ctx, n)
		n.conn.Close()
	}
	err = because(ctx, err)

	end(errors.New("the demo is over"))
	if left := <-ended; !dev.ProcessState.Success() || errors.Is(left, exec.ErrWaitDelay) {
		err = errors.Join(err, fmt.Errorf("end nex dev: %w", left))
	}
	if err != nil && !errors.Is(outer.Err(), context.Canceled) {
		err = fmt.Errorf("%w\n\nnex dev said:\n%s", err, &log)
	}
	return err
}

// freePort returns a port that nobody listens on.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

// environment returns this process's environment without what configures NATS
// and Nex, and with dir as home.
func environment(dir, url string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NATS_") || strings.HasPrefix(v, "NEX_") || strings.HasPrefix(v, "XDG_")
	})
	return append(env, "HOME="+dir, "TMPDIR="+dir, "NATS_URL="+url)
}

// connect waits until NATS runs and a node answers in it.
func (n *nex) connect(ctx context.Context) error {
	err := eventually(ctx, func() (bool, error) {
		var err error
		n.conn, err = nats.Connect(n.url, nats.Name("nex demo"))
		return err == nil, err
	})
	if err != nil {
		return fmt.Errorf("connect to %s: %w", n.url, err)
	}
	if _, err := n.ask(ctx, "$NEX.PING", ""); err != nil {
		n.conn.Close()
		return fmt.Errorf("wait for the node: %w", err)
	}
	return nil
}

// command runs a command of nex, shows it as one would type it, and returns
// what it prints.
func (n *nex) command(ctx context.Context, args ...string) (string, error) {
	typed := "nex " + strings.Join(args, " ")
	fmt.Printf("\n$ %s\n", typed)
	var printed bytes.Buffer
	cmd := program(ctx, nexPath, args...)
	cmd.Env = n.env
	cmd.Stdout = io.MultiWriter(os.Stdout, &printed)
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w", typed, err)
	}
	return printed.String(), nil
}

// workload is one that runs, and the node it is on.
type workload struct{ id, node string }

var accepted = regexp.MustCompile(`accepted\. .* ID: (\S+) on node (\S+)`)

// devrun deploys a file.
func (n *nex) devrun(ctx context.Context, file, setting string) (workload, error) {
	printed, err := n.command(ctx, "devrun", file, setting)
	if err != nil {
		return workload{}, err
	}
	m := accepted.FindStringSubmatch(printed)
	if m == nil {
		return workload{}, fmt.Errorf("nex devrun %s did not say where the workload runs", file)
	}
	return workload{id: m[1], node: m[2]}, nil
}
