package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"nex/internal/nextest"
)

// TestNodeSweepsJails: what a machine of a node that was killed had elsewhere than in
// its directory is gone when a node starts on the same state directory.
func TestNodeSweepsJails(t *testing.T) {
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "firecracker", "left")
	left := filepath.Join(dir, "machines", "left")
	for _, d := range []string{left, filepath.Join(elsewhere, "root")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(left, "jail.json"), []byte(`{"root": "`+elsewhere+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, end := runNode(t, nextest.Server(t).ClientURL(), dir, settings(t))
	defer end()
	for _, d := range []string{left, elsewhere} {
		if _, err := os.Stat(d); err == nil {
			t.Errorf("%s is still there", d)
		}
	}
}
