// Command nex-agent runs workloads for one Nex node. Nodes start it; it is of
// no use by hand.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"time"

	"nex/internal/agent"
	"nex/internal/cgroup"
	"nex/internal/confine"
	"nex/internal/guest"
	"nex/internal/guestos"
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
	if err := inPlace(args); err != nil {
		fmt.Fprintln(stderr, "nex-agent:", err)
		return 1
	}
	return 0
}

// inPlace serves in the sandbox that the node asks for, or in the guest that this
// machine may be.
func inPlace(args []string) error {
	if os.Getenv(confine.Variable) != "" {
		return confine.Main(func(box confine.Sandbox) error {
			return serve(context.Background(), args, box, guestos.Agent{})
		})
	}
	return guestos.Main(func(ctx context.Context, here guestos.Agent) error {
		if here.First {
			args = nil // words of the kernel command line that nobody knows
		}
		return serve(ctx, args, confine.Sandbox{}, here)
	})
}

// serve works in the current directory, which a node makes for each agent; in a
// guest it makes that itself.
func serve(ctx context.Context, args []string, box confine.Sandbox, here guestos.Agent) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	cfg := agent.Config{
		Version: version, Cache: os.Getenv(guest.CacheVariable), Quit: quit(here),
		Confine: box.Service, Notice: box.Notice, Alone: true,
	}
	link, err := agent.InheritedLink()
	switch {
	case err == nil:
		cfg.Dir, err = os.Getwd()
	case here.Guest:
		link, cfg.Dir, err = fromOutside(ctx)
		cfg.Clock = guestos.SetClock
	}
	if err != nil {
		return err
	}
	if cfg.Doors, err = agent.InheritedDoors(); err != nil {
		return err
	}
	if here.First {
		enclose(&cfg)
	}
	return agent.Run(ctx, link, cfg)
}

// enclose has services limited by cgroups of this machine, where its kernel has
// what it takes: there is no node to do it. Else limits of single processes stand
// in for that.
func enclose(cfg *agent.Config) {
	root, err := cgroup.Open()
	if err != nil {
		fmt.Fprintln(os.Stderr, "nex-agent: services are limited less exactly:", err)
		return
	}
	group, err := root.Make("machine")
	if err == nil {
		cfg.Doors, err = group.Work()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nex-agent: services are limited less exactly:", err)
		return
	}
	cfg.Limit = group.Limit
}

// quit ends this process at once, and with process 1 of a guest the machine.
func quit(here guestos.Agent) func() {
	return func() {
		if here.First {
			_ = guestos.PowerOff() // else the end of this process does it
		}
		os.Exit(1)
	}
}

// linkTime is how long the devices of a guest, and its node, may take.
const linkTime = 30 * time.Second

// fromOutside takes up the link to the node outside of this machine.
func fromOutside(ctx context.Context) (link net.Conn, dir string, err error) {
	if dir, err = guestos.Enter(); err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, linkTime)
	defer cancel()
	link, err = agent.MachineLink(ctx)
	return link, dir, err
}
