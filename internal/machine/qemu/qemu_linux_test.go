package qemu_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nex/internal/cgroup"
	"nex/internal/machine"
	"nex/internal/machine/microvm"
	"nex/internal/machine/qemu"
	"nex/internal/nextest"
)

func TestMain(m *testing.M) { nextest.Main(m) }

// bootTime is how long a boot may take on a host that is busy with others.
const bootTime = 2 * time.Minute

// launcher makes machines whose processors are emulated, with their directories in
// dir.
func launcher(t testing.TB, dir string, groups *cgroup.Root, agent string) *qemu.Launcher {
	t.Helper()
	image := nextest.GuestImage(t, agent)
	l := &qemu.Launcher{
		Config: &microvm.Config{
			Kernel: filepath.Join(image, "vmlinux"), Initramfs: filepath.Join(image, "initramfs"), RootFS: filepath.Join(image, "rootfs.ext4"),
			CPUs: 1, MemoryMiB: 256, DiskMiB: 256, Dir: dir, Records: dir + "-records", Templates: t.TempDir(), Groups: groups,
			Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		},
		Program: nextest.Program(t, "qemu-system-x86_64"),
	}
	if _, err := l.Choose(t.Context(), qemu.TCG); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestLaunchers boots real guests.
func TestLaunchers(t *testing.T) {
	groups, _ := cgroup.Open() // nil where there are none
	t.Cleanup(groups.Close)
	nextest.Launchers(t, nextest.Machines{
		Boot: bootTime, Boots: 3, Kernel: true,
		New: func(t *testing.T, dir string) machine.Launcher {
			return launcher(t, dir, groups, nextest.StaticAgent(t))
		},
		Sweep: func(t *testing.T, dir string) {
			left, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range left {
				if err := groups.Sweep(t.Context(), d.Name()); err != nil {
					t.Error(err)
				}
			}
		},
	})
}
