// Command liar is the first program of a microVM whose agent lies to its node: see
// package liar. What its lie is says the artifact.
package main

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nex/internal/agent"
	"nex/internal/nextest/liar"
)

func main() {
	ctx := context.Background()
	link, err := agent.MachineLink(ctx)
	if err == nil {
		err = liar.Tell(ctx, "", link)
	}
	fmt.Fprintln(os.Stderr, "liar:", err)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // VMMs take it for the end
}
