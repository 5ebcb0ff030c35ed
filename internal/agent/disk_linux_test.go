package agent_test

import (
	"strings"
	"testing"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
)

// TestFullDiskIsNoDefect: who asked is told what it is, and that trying again may
// help; what fits is taken then.
func TestFullDiskIsNoDefect(t *testing.T) {
	c := startIn(t, nextest.SmallDisk(t, "256k"))
	big := "#!/bin/sh\n" + strings.Repeat("#\n", 256<<10)
	err := deploy(t.Context(), c, "big", nex.Native, big, guest.Sink{})
	if nex.CodeOf(err) != nex.Unavailable || !strings.Contains(err.Error(), "disk") {
		t.Errorf("got %s: %v", nex.CodeOf(err), err)
	}
	if err := c.Undeploy(t.Context(), "big"); err != nil {
		t.Fatal(err)
	}
	if err := deploy(t.Context(), c, "small", nex.V8, "() => 1", guest.Sink{}); err != nil {
		t.Error(err)
	}
}
