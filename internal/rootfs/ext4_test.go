package rootfs

import (
	"os/exec"
	"path/filepath"
	"testing"

	"nex/internal/nextest"
)

func TestMain(m *testing.M) { nextest.Main(m) }

// fsck fails the test if e2fsck finds fault with a file system.
func fsck(t *testing.T, path string) {
	t.Helper()
	if out, err := exec.Command(nextest.Program(t, "e2fsck"), "-fn", path).CombinedOutput(); err != nil {
		t.Fatalf("e2fsck: %v\n%s", err, out)
	}
}

func TestEmptyIsClean(t *testing.T) {
	for _, size := range []int64{64 << 10, 128 << 10, 1 << 20, 128 << 20, 128<<20 + 4096, 150 << 20, 1<<30 + 12345, 17 << 30, 40 << 30} {
		path := filepath.Join(t.TempDir(), "e.ext4")
		if err := Empty(t.Context(), path, size); err != nil {
			t.Errorf("%d: %v", size, err)
			continue
		}
		fsck(t, path)
	}
}
