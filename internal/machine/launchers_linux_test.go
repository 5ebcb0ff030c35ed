package machine_test

import (
	"log/slog"
	"os"
	"testing"

	"nex/internal/cgroup"
	"nex/internal/confine"
	"nex/internal/machine"
	"nex/internal/nextest"
)

// TestLaunchers runs the suite over all machines that are processes, and over the
// fake ones of other tests.
func TestLaunchers(t *testing.T) {
	t.Run("fake", func(t *testing.T) {
		nextest.Launchers(t, nextest.Machines{Fake: true, Boots: 20, New: func(*testing.T, string) machine.Launcher { return fake() }})
	})
	groups, _ := cgroup.Open() // nil where there are none
	t.Cleanup(groups.Close)
	for name, l := range map[string]struct {
		confine *confine.Config
		groups  *cgroup.Root
		link    string
	}{
		"plain":    {nil, groups, "socket pair"},
		"piped":    {nil, nil, "pipes"},
		"confined": {&confine.Config{Network: confine.NoNetwork}, groups, "socket pair"},
	} {
		t.Run(name, func(t *testing.T) {
			nextest.Launchers(t, nextest.Machines{
				Boots: 20,
				New: func(t *testing.T, dir string) machine.Launcher {
					return links[l.link](&machine.Processes{
						Agent: nextest.StaticAgent(t), Dir: dir, Confine: l.confine, Groups: l.groups,
						Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
					})
				},
				Sweep: func(t *testing.T, dir string) { sweep(t, l.groups, dir) },
			})
		})
	}
}

// sweep ends what machines have left outside of their directories.
func sweep(t *testing.T, groups *cgroup.Root, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range left {
		if err := groups.Sweep(t.Context(), d.Name()); err != nil {
			t.Error(err)
		}
	}
}
