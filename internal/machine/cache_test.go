package machine

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTrimCacheKeepsTheLatestUsed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "wasm")
	if err := trimCache(dir, 0); err != nil {
		t.Fatalf("a cache that is not there yet: %v", err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("cache directory: %v, %v", info, err)
	}
	for hours, tenant := range []string{"new", "older", "oldest"} {
		path := filepath.Join(dir, tenant, "entry", "code")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		used := time.Now().Add(-time.Duration(hours) * time.Hour)
		if err := os.Chtimes(path, used, used); err != nil {
			t.Fatal(err)
		}
	}
	if err := trimCache(dir, 250); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 || left[0].Name() != "new" || left[1].Name() != "older" {
		t.Errorf("left: %v, %v", left, err)
	}
}
