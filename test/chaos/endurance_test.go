//go:build linux

package chaos_test

import (
	"flag"
	"testing"
	"time"

	"nex/test/chaos"
)

var (
	cycles   = flag.Int("cycles", 200, "deploys and stops")
	limit    = flag.Duration("limit", 20*time.Minute, "when they end in any case")
	restarts = flag.Int("restarts", 3, "of NATS under load")
)

// TestCyclesLeaveNothing deploys and stops again and again.
func TestCyclesLeaveNothing(t *testing.T) {
	endure(t, func(o chaos.Options) ([]string, error) { return chaos.Cycle(t.Context(), o, *cycles, *limit, t.Logf) })
}

// TestServerRestartsUnderLoad kills NATS and starts it again, again and again.
func TestServerRestartsUnderLoad(t *testing.T) {
	endure(t, func(o chaos.Options) ([]string, error) { return chaos.Restart(t.Context(), o, *restarts, t.Logf) })
}

func endure(t *testing.T, run func(chaos.Options) ([]string, error)) {
	if testing.Short() {
		t.Skip("it takes a while")
	}
	violations, err := run(chaos.Options{Seed: *seed, CallsPerSecond: 100, LogDir: t.ArtifactDir()})
	if err != nil {
		t.Error(err)
	}
	for _, v := range violations {
		t.Error(v)
	}
}
