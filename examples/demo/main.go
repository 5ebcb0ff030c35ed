//go:build unix

// Command demo shows Nex at work on this machine: it builds the examples,
// starts "nex dev" on a free port, deploys the examples with the nex command,
// sends them requests, and looks whether the replies are what they should be.
//
//	make demo
//
// It runs in the root of the repository, takes three minutes at most, and
// leaves nothing behind: all that it and Nex write is in a temporary directory,
// which is also Nex's home.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// total bounds the demo, but for the end of nex dev.
const total = 3 * time.Minute

func main() {
	// With SIGPIPE, the demo also cleans up when nobody reads its output.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, total, fmt.Errorf("not done within %s", total))
	defer cancel()
	replies, err := demo(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	fmt.Printf("\ndemo: %d replies, all as expected\n", replies)
}

// demo is the whole demo. It returns how many replies there were.
func demo(ctx context.Context) (replies int, err error) {
	for _, program := range []string{nexPath, nexPath + "-agent"} {
		if _, err := os.Stat(program); err != nil {
			return 0, fmt.Errorf("no %s here: run \"make build\" first, in the root of the repository", program)
		}
	}
	dir, err := os.MkdirTemp("", "nex-demo-*")
	if err != nil {
		return 0, fmt.Errorf("make a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := build(ctx, dir); err != nil {
		return 0, err
	}
	err = withNex(ctx, dir, func(ctx context.Context, n *nex) error {
		replies, err = show(ctx, n, dir)
		return err
	})
	return replies, err
}

// example is a file to deploy, and what to ask it then.
type example struct {
	file    string
	setting string // the trigger of a function, the environment of a service
	calls   []call
}

func examples(dir, url string) []example {
	return []example{
		{"examples/js/echo.js", "--trigger_subject=js.echo", []call{
			{"js.echo", "heya", text("heya")},
		}},
		{"examples/js/json.js", "--trigger_subject=js.json", []call{
			{"js.json", `{"items":[{"price":3,"count":2}]}`, object(`{"subject":"js.json","customer":"unknown","items":1,"total":6}`)},
			{"js.json", `{}`, failure("TypeError: an order needs items")},
		}},
		{"examples/wasm/echofunction/echofunction.wasm", "--trigger_subject=wasm.echo", []call{
			{"wasm.echo", "hello", text("hellowasm.echo")},
		}},
		{filepath.Join(dir, "echo.wasm"), "--trigger_subject=wasm.goecho", []call{
			{"wasm.goecho", "hello", text("hellowasm.goecho")},
		}},
		{filepath.Join(dir, "echoservice"), "NATS_URL=" + url, []call{
			{"svc.echo", "hey", text("hey")},
			{"$SRV.PING.EchoService", "", service("EchoService")},
		}},
	}
}

// show deploys the examples, asks each what it can answer, looks at the node,
// and stops the last one.
func show(ctx context.Context, n *nex, dir string) (replies int, err error) {
	var last workload
	for _, e := range examples(dir, n.url) {
		if last, err = n.devrun(ctx, e.file, e.setting); err != nil {
			return replies, err
		}
		for _, c := range e.calls {
			if err := n.expect(ctx, c); err != nil {
				return replies, err
			}
			replies++
		}
	}
	for _, args := range [][]string{{"node", "ls"}, {"node", "info", last.node}, {"stop", last.node, last.id}} {
		if _, err := n.command(ctx, args...); err != nil {
			return replies, err
		}
	}
	return replies, n.expectNobody(ctx, "svc.echo", "hey")
}
