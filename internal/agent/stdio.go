package agent

import (
	"fmt"
	"net"
	"os"

	"nex/internal/guest"
)

// standardLink makes the guest link of the standard input and output, which
// are not for anybody else from here on: what this process prints goes to the
// standard error.
func standardLink() (net.Conn, error) {
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("replace the standard input: %w", err)
	}
	in, out := os.Stdin, os.Stdout
	os.Stdin, os.Stdout = nothing, os.Stderr
	return guest.NewPipes(in, out), nil
}
