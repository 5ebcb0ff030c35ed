//go:build unix

package rootfs

import (
	"syscall"
	"testing"
)

// allocatedBytes returns what a file takes on the disk.
func allocatedBytes(t *testing.T, path string) int64 {
	t.Helper()
	var s syscall.Stat_t
	if err := syscall.Stat(path, &s); err != nil {
		t.Fatal(err)
	}
	return s.Blocks * 512
}
