//go:build linux

package chaos

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestASeedIsAPlan: the same one each time, another one for another seed, and all
// kinds of faults in an hour.
func TestASeedIsAPlan(t *testing.T) {
	o := Options{Duration: time.Hour, Nodes: 3}
	draw := func(seed uint64) []step { return plan(rand.New(rand.NewPCG(seed, 0)), o) }
	if !slices.Equal(draw(7), draw(7)) {
		t.Error("a seed gives two plans")
	}
	if slices.Equal(draw(7), draw(8)) {
		t.Error("two seeds give the same plan")
	}
	seen := map[faultKind]bool{}
	last := time.Duration(0)
	for _, s := range draw(7) {
		if seen[s.kind] = true; s.at < last || s.at >= o.Duration || s.node < 0 || s.node >= o.Nodes {
			t.Errorf("%s, after %s", s, last)
		}
		last = s.at
	}
	for _, k := range slices.Concat(light, heavy) {
		if !seen[k] {
			t.Errorf("there is never: %s", k)
		}
	}
}
