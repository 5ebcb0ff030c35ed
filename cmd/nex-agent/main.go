// Command nex-agent runs workloads for one Nex node. Nodes start it; it is of
// no use by hand.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"nex/internal/agent"
	"nex/internal/confine"
	"nex/internal/guest"
)

// version is set at build time.
var version = "development"

func main() {
	if code, was := agent.Shim(os.Args); was {
		os.Exit(code)
	}
	debug.SetGCPercent(400) // what the agent itself has is little
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 1 && args[0] == "--version" {
		fmt.Fprintln(stdout, version)
		return 0
	}
	if err := confine.Main(func(box confine.Sandbox) error { return serve(args, box) }); err != nil {
		fmt.Fprintln(stderr, "nex-agent:", err)
		return 1
	}
	return 0
}

// serve works in the current directory, which a node makes for each agent.
func serve(args []string, box confine.Sandbox) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	dir, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("find working directory: %w", err)
	}
	link, err := agent.InheritedLink()
	if err != nil {
		return err
	}
	doors, err := agent.InheritedDoors()
	if err != nil {
		return err
	}
	return agent.Run(context.Background(), link, agent.Config{
		Version: version, Dir: dir, Cache: os.Getenv(guest.CacheVariable), Quit: func() { os.Exit(1) },
		Confine: box.Service, Notice: box.Notice,
		Alone: true, Doors: doors,
	})
}
