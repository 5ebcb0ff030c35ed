//go:build linux

package chaos_test

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nex/internal/nextest"
	"nex/test/chaos"
)

var (
	seed     = flag.Uint64("seed", 1, "what the plan is drawn from")
	duration = flag.Duration("duration", 5*time.Minute, "of traffic and faults, for all worlds together")
	nodes    = flag.Int("nodes", 0, "1 or 3 for that world alone")
	pace     = flag.Int("pace", 1, "how many times as fast faults come and go")
	rate     = flag.Int("rate", 30, "calls a second")
)

func TestMain(m *testing.M) {
	if run, ok := chaos.Role(); ok {
		os.Exit(run())
	}
	nextest.Main(m)
}

// TestChaosOneNode and TestChaosThreeNodes share the time that there is.
func TestChaosOneNode(t *testing.T) { run(t, 1) }

func TestChaosThreeNodes(t *testing.T) { run(t, 3) }

func run(t *testing.T, n int) {
	if testing.Short() {
		t.Skip("it takes minutes")
	}
	o := chaos.Options{Seed: *seed, Duration: *duration / 2, Nodes: n, CallsPerSecond: *rate, Pace: *pace, LogDir: t.ArtifactDir()}
	switch *nodes {
	case n:
		o.Duration = *duration
	case 0:
	default:
		t.Skipf("-nodes %d", *nodes)
	}
	r := drive(t, o)
	for _, v := range r.Violations {
		t.Error(v)
	}
	if t.Failed() {
		showLogs(t, o.LogDir)
		t.Logf("again, with logs in bin/chaos: make chaos SEED=%d DURATION=%s CHAOSFLAGS='-nodes %d -rate %d -pace %d'", o.Seed, o.Duration, n, *rate, *pace)
	}
}

// lastLines is how much of each log a failure shows.
const lastLines = 40

// showLogs shows how the logs end, for where they are not kept.
func showLogs(t *testing.T, dir string) {
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		lines := strings.SplitAfter(string(text), "\n")
		t.Logf("%s (%v):\n%s", filepath.Base(f), err, strings.Join(lines[max(0, len(lines)-lastLines):], ""))
	}
}

// drive runs a world and shows the counts.
func drive(t *testing.T, o chaos.Options) chaos.Report {
	t.Helper()
	ctx, cancel := signal.NotifyContext(t.Context(), os.Interrupt, syscall.SIGTERM) // so that disks are unmounted then too
	defer cancel()
	r, err := chaos.Run(ctx, o)
	t.Logf("seed %d, %d nodes, %s:\n%s", o.Seed, o.Nodes, o.Duration, r.Summary)
	if err != nil {
		t.Fatal(err, r.Violations)
	}
	return r
}

// TestPlantedFaultsAreFound has the driver look at a world with a fault of its own
// making, which it must name, and at the same world without.
func TestPlantedFaultsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a minute")
	}
	for plant, names := range map[chaos.Plant]string{
		"":                    "",
		chaos.LostReply:       "has no reply",
		chaos.LeakedAgent:     "process left behind",
		chaos.DoubledUndeploy: "is undeployed for the 2. time",
	} {
		t.Run(fmt.Sprint("plant ", plant), func(t *testing.T) {
			r := drive(t, chaos.Options{
				Seed: 1, Duration: 8 * time.Second, Nodes: 1, CallsPerSecond: 20, LightOnly: true, Plant: plant, LogDir: t.ArtifactDir(),
			})
			found := 0
			for _, v := range r.Violations {
				if names != "" && strings.Contains(v, names) {
					found++
				} else {
					t.Error(v)
				}
			}
			if names != "" && found == 0 {
				t.Errorf("no violation says %q", names)
			}
		})
	}
}
