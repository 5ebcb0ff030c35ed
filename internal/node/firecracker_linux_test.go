package node_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"nex/internal/nextest"
)

// TestNodeSweepsJails: what a machine of a node that was killed had elsewhere than in
// its directory is gone when a node starts on the same state directory, also where nothing else tells of the
// machine. What is in the machine's own directory tells nothing: others may have written it.
func TestNodeSweepsJails(t *testing.T) {
	dir, elsewhere, others := t.TempDir(), filepath.Join(t.TempDir(), "firecracker", "left"), t.TempDir()
	machines, records := filepath.Join(dir, "machines", "other"), filepath.Join(dir, "records", "left")
	for d, root := range map[string]string{records: elsewhere, machines: others} {
		if err := errors.Join(os.MkdirAll(d, 0o700), os.MkdirAll(filepath.Join(root, "root"), 0o700),
			os.WriteFile(filepath.Join(d, "jail.json"), []byte(`{"root": "`+root+`"}`), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	_, end := runNode(t, nextest.Server(t).ClientURL(), dir, settings(t))
	defer end()
	for _, d := range []string{records, machines, elsewhere} {
		if _, err := os.Stat(d); err == nil {
			t.Errorf("%s is still there", d)
		}
	}
	if _, err := os.Stat(filepath.Join(others, "root")); err != nil {
		t.Error("what a machine's own directory tells was believed: ", err)
	}
}

// TestNodeStartsWhereSomethingCannotBeSwept, and says so.
func TestNodeStartsWhereSomethingCannotBeSwept(t *testing.T) {
	dir := t.TempDir()
	records := filepath.Join(dir, "records", "left")
	if err := errors.Join(os.MkdirAll(records, 0o700), os.WriteFile(filepath.Join(records, "jail.json"), []byte(`{`), 0o600)); err != nil {
		t.Fatal(err)
	}
	_, end := runNode(t, nextest.Server(t).ClientURL(), dir, settings(t))
	defer end()
	if _, err := os.Stat(records); err != nil {
		t.Error("nobody will try again: ", err)
	}
}
