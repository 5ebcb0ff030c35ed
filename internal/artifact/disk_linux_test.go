package artifact_test

import (
	"os"
	"strings"
	"testing"

	"nex"
	"nex/internal/artifact"
	"nex/internal/nextest"
)

// TestFullDiskIsNoDefect: what is told says that trying again may help, and
// nothing of the download is left.
func TestFullDiskIsNoDefect(t *testing.T) {
	dir := nextest.SmallDisk(t, "64k")
	big := honest(strings.Repeat("x", 1<<20))
	c, err := artifact.NewCache(dir, 1<<30, &source{objects: map[string]object{"big": big}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Fetch(t.Context(), artifact.Ref{Bucket: "B", Key: "big"}, func(int64) error { return nil })
	if nex.CodeOf(err) != nex.Unavailable || !strings.Contains(err.Error(), "disk is full") {
		t.Errorf("got %s: %v", nex.CodeOf(err), err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
