package nextest

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// SmallDisk returns a directory that is a disk of its own until the test ends,
// of a size as mount(8) understands it. Without root the test is skipped.
func SmallDisk(t testing.TB, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a disk")
	}
	dir := t.TempDir()
	if err := unix.Mount("nex-test", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mount a disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount the disk: %v", err)
		}
	})
	return dir
}
