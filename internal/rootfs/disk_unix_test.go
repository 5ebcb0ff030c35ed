//go:build unix

package rootfs

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"nex/internal/nextest"
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

// elsewhere changes what a build must not depend on for the rest of a test: the
// umask, the zone of the time and where temporary files are.
func elsewhere(t *testing.T) {
	t.Helper()
	zone, mask := time.Local, syscall.Umask(0o077)
	time.Local = time.FixedZone("elsewhere", 5*3600+1800)
	t.Cleanup(func() { time.Local = zone; syscall.Umask(mask) })
	t.Setenv("TZ", "Asia/Kolkata")
	t.Setenv("LC_ALL", "tr_TR.UTF-8")
	t.Setenv("TMPDIR", t.TempDir())
}

// TestEqualInputsMakeEqualBytes: by another user's habits, under another name and at another time.
func TestEqualInputsMakeEqualBytes(t *testing.T) {
	dir := t.TempDir()
	script, base := filepath.Join(dir, "boot.sh"), filepath.Join(dir, "base.tar")
	var sums []string
	for i, mode := range []os.FileMode{0o600, 0o755} { // of the inputs, which is not theirs in the image
		if i == 1 {
			elsewhere(t)
		}
		for name, data := range map[string][]byte{script: []byte("#!/bin/sh\n"), base: archive(t, alpineLike[0]...)} {
			if err := os.WriteFile(name, data, mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(name, time.Now(), time.Now().AddDate(-i, 0, 0)); err != nil {
				t.Fatal(err)
			}
		}
		for _, output := range []string{"a.ext4", "b.ext4.gz"} {
			r, err := Build(t.Context(), Options{Base: base, Agent: nextest.StaticAgent(t), Script: script, Sum: true, Size: 40 << 20, Output: filepath.Join(t.TempDir(), output)})
			if err != nil {
				t.Fatal(err)
			}
			sums = append(sums, r.SHA256)
		}
	}
	if sums[0] != sums[2] || sums[1] != sums[3] {
		t.Errorf("two builds differ: %q", sums)
	}
}
