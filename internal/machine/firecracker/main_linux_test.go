package firecracker

import (
	"os"
	"testing"

	"nex/internal/machine/firecracker/fcemu"
	"nex/internal/nextest"
)

// TestMain: the test binary is also an emulator of Firecracker, a stand-in for its
// jailer, an agent, a node that can be killed, and a process
// in a jail.
func TestMain(m *testing.M) {
	if code, was := fcemu.Shim(os.Args); was {
		os.Exit(code)
	}
	if spec := os.Getenv(nodeVariable); spec != "" {
		os.Exit(beNode(spec))
	}
	if root := os.Getenv(jailedVariable); root != "" {
		os.Exit(beJailed(root))
	}
	nextest.Main(m)
}
