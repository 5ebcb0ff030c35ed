package machine_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCgroupThatStays: of a machine whose cgroup cannot be removed the directory
// stays, since by that the next start of the node finds the cgroup.
func TestCgroupThatStays(t *testing.T) {
	root := groups(t)
	g, dir := bootWith(t, root)
	found := groupsNamed(g.ID())
	if len(found) == 0 {
		t.Fatal("the machine has no cgroup")
	}
	work := filepath.Join(found[0], "work")
	if err := unix.Mount(t.TempDir(), work, "", unix.MS_BIND, ""); err != nil {
		t.Skip("nothing can be put in its way: ", err)
	}
	free := func() error { return unix.Unmount(work, unix.MNT_DETACH) }
	defer func() { _ = free() }() // after a failure
	g.Release()
	if _, err := os.Stat(filepath.Join(dir, g.ID())); err != nil {
		t.Errorf("the directory by which the cgroup is found: %v", err)
	}
	if err := free(); err != nil {
		t.Error(err)
	}
	if err := root.Sweep(t.Context(), g.ID()); err != nil {
		t.Error(err)
	}
	if left := groupsNamed(g.ID()); len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
}
