package workload_test

import (
	"fmt"
	"slices"
	"testing"

	"nex"
	"nex/internal/guest"
	"nex/internal/workload"
)

// TestCrowdsOfSuspectsAreHalved has one of many busy functions end its guest
// again and again: it ends up alone after few losses, and on the way there no
// loss costs more than a few guests.
func TestCrowdsOfSuspectsAreHalved(t *testing.T) {
	const functions, most = 200, 8
	b := newBench(t, workload.Limits{})
	ids := []string{}
	for i := range functions {
		ids = append(ids, b.deploy(t, function(fmt.Sprintf("f%d", i))))
	}
	b.drop(t, functions)
	bomb := ids[70]
	for loss := 1; ; loss++ {
		home := b.guestOf(bomb)
		together := home.runs()
		if len(together) == 1 {
			break
		}
		if loss > 10 {
			t.Fatalf("after %d losses the offender is among %d functions", loss, len(together))
		}
		before := len(b.live())
		home.crash(together...)
		for name, e := range b.restarts(t, len(together)) {
			if e.DelayMS < 50 || e.Offender != (len(together) <= most) {
				t.Errorf("%s, one of %d suspects: %+v", name, len(together), e)
			}
		}
		if now := len(b.live()); now > before+most-1 {
			t.Errorf("%d guests became %d when %d functions lost theirs", before, now, len(together))
		}
	}
	b.guestOf(bomb).crash(bomb)
	if all := b.restarts(t, 1); len(all) != 1 || !all["f70"].Offender {
		t.Errorf("the last loss: %v", all)
	}
}

// TestDeployInACrowdIsTriedInSmallerOnes: who loads while many others may have
// ended the guest comes up elsewhere, in a half of its group.
func TestDeployInACrowdIsTriedInSmallerOnes(t *testing.T) {
	b := newBench(t, workload.Limits{})
	tries := 0
	b.host.deploy = func(g *fakeGuest, d guest.Deploy, sink guest.Sink) error {
		if tries++; tries > 2 {
			return nil
		}
		sink.Lost(guest.FaultCrowd)
		g.Release()
		return nex.Errorf(nex.Unavailable, "lost")
	}
	second := b.deploy(t, function("second"))
	if home := b.guestOf(second); tries != 3 || !slices.Equal(home.runs(), []string{second}) {
		t.Errorf("after %d tries the guest runs %v", tries, home.runs())
	}
}

// guestOf finds where a workload runs.
func (b *bench) guestOf(id string) *fakeGuest {
	for _, g := range b.host.taken() {
		select {
		case <-g.gone:
		default:
			if slices.Contains(g.runs(), id) {
				return g
			}
		}
	}
	return nil
}
