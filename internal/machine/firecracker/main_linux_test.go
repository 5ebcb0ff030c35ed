package firecracker

import (
	"os"
	"testing"

	"nex/internal/machine/firecracker/fcemu"
	"nex/internal/nextest"
)

// TestMain: the test binary is also an emulator of Firecracker, a stand-in for its
// jailer, and an agent.
func TestMain(m *testing.M) {
	if code, was := fcemu.Shim(os.Args); was {
		os.Exit(code)
	}
	nextest.Main(m)
}
