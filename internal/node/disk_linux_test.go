package node_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"nex"
	"nex/internal/nextest"
)

// fill takes all space on the disk that a directory is, and returns the deed that
// gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "full"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 16<<10))
	}
	if err = errors.Join(err, f.Close()); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(f.Name()); err != nil {
			t.Error(err)
		}
	}
}

// TestNodeStartsOnAFullDisk: it takes nothing new, and brings back what it ran as
// soon as there is room.
func TestNodeStartsOnAFullDisk(t *testing.T) {
	r := newRig(t, settings(t))
	r.end()
	r.dir = nextest.SmallDisk(t, "16m")
	r.node, r.end = runNode(t, r.nc.ConnectedUrl(), r.dir, settings(t))
	r.mustDeployJS(t, "f", "full.f", echo)
	another := r.upload(t, "another", nex.V8, []byte(echo))
	another.TriggerSubjects = []string{"full.another"}
	r.end()

	free := fill(t, r.dir)
	r.node, r.end = runNode(t, r.nc.ConnectedUrl(), r.dir, settings(t))
	if _, err := r.deploy(t, another); nex.CodeOf(err) != nex.Unavailable {
		t.Errorf("a deploy on a full disk: %s: %v", nex.CodeOf(err), err)
	}
	free()
	r.awaitAnswers(t, []string{"full.f"})
	if _, err := r.deploy(t, another); err != nil {
		t.Errorf("a deploy when there is room again: %v", err)
	}
	r.awaitAnswers(t, []string{"full.another"})
	if left, _ := filepath.Glob(filepath.Join(r.dir, "*.new")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
