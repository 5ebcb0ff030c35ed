// Command nex-agent runs workloads for one Nex node. Nodes start it; it is of
// no use by hand.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"

	"nex/internal/agent"
)

// version is set at build time.
var version = "development"

// linkFD is the file descriptor of the guest link a node passes on.
const linkFD = 3

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 1 && args[0] == "--version" {
		fmt.Fprintln(stdout, version)
		return 0
	}
	if err := serve(args); err != nil {
		fmt.Fprintln(stderr, "nex-agent:", err)
		return 1
	}
	return 0
}

func serve(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	file := os.NewFile(linkFD, "guest link")
	conn, err := net.FileConn(file)
	if err != nil {
		return fmt.Errorf("no guest link on file descriptor %d: nodes start this program, see nex node up --help", linkFD)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("close duplicate of the guest link: %w", err)
	}
	dir, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("find working directory: %w", err)
	}
	return agent.Run(context.Background(), conn, agent.Config{Version: version, Dir: dir})
}
