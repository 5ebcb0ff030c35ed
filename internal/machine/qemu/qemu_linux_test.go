package qemu_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/xid"

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
	return launcherOf(t, dir, groups, nextest.GuestImage(t, agent))
}

// launcherOf is launcher for an image.
func launcherOf(t testing.TB, dir string, groups *cgroup.Root, image string) *qemu.Launcher {
	t.Helper()
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
		Boot: bootTime, Boots: 20, Kernel: true,
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

// TestQEMUOfRootHasAUserOfItsOwn, no privileges, and no network but its guest's.
func TestQEMUOfRootHasAUserOfItsOwn(t *testing.T) {
	nextest.Root(t)
	groups, err := cgroup.Open()
	if err != nil {
		t.Skip("without cgroups QEMU stays root: ", err)
	}
	t.Cleanup(groups.Close)
	l := launcher(t, t.TempDir(), groups, nextest.StaticAgent(t))
	m, err := l.Launch(t.Context(), xid.New().String())
	if err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(m.(*qemu.Machine).PID())
	defer func() {
		if err := m.Destroy(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	user := strconv.Itoa(microvm.UserOf(m.ID()))
	for name, want := range map[string]string{
		"Uid": strings.Repeat(user+" ", 3) + user, "Gid": strings.Repeat(user+" ", 3) + user, "Groups": user,
		"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
	} {
		_, rest, _ := strings.Cut("\n"+string(status), "\n"+name+":")
		line, _, _ := strings.Cut(rest, "\n")
		if got := strings.Join(strings.Fields(line), " "); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if its, err := os.Readlink("/proc/" + pid + "/ns/net"); err != nil || its == own {
		t.Errorf("its network namespace is %s, that of the node %s, %v", its, own, err)
	}
}
