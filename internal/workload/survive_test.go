package workload_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
	"nex/internal/workload"
)

// crash plays the loss of a guest that may be the fault of these workloads.
func (g *fakeGuest) crash(suspects ...string) {
	g.mu.Lock()
	for id, sink := range g.running {
		fault := guest.FaultUnknown
		if slices.Contains(suspects, id) {
			fault = guest.FaultOwn
			if len(suspects) > 8 {
				fault = guest.FaultCrowd
			}
		} else if len(suspects) > 0 {
			fault = guest.FaultOthers
		}
		sink.Lost(fault)
	}
	g.mu.Unlock()
	g.Release()
}

// runs lists the workloads of a guest.
func (g *fakeGuest) runs() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	ids := []string{}
	for id := range g.running {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// restarts waits until so many workloads have come back, and returns how each
// was announced.
func (b *bench) restarts(t *testing.T, n int) map[string]nex.WorkloadRestarting {
	t.Helper()
	all := map[string]nex.WorkloadRestarting{}
	for back := 0; back < n; {
		switch e := nextest.Await(t, b.report.events, "the workloads to come back").(type) {
		case nex.WorkloadRestarting:
			all[e.Name] = e
		case nex.WorkloadDeployed:
			back++
		}
	}
	return all
}

// live lists what runs on each guest that is there.
func (b *bench) live() (all [][]string) {
	for _, g := range b.host.taken() {
		select {
		case <-g.gone:
		default:
			all = append(all, g.runs())
		}
	}
	return all
}

// drop forgets the events of deploys.
func (b *bench) drop(t *testing.T, n int) {
	t.Helper()
	for range n {
		b.event(t, nex.WorkloadDeployed{})
	}
}

func TestOffenderRunsAloneAndLate(t *testing.T) {
	b := newBench(t, workload.Limits{})
	one, bomb, two := b.deploy(t, function("one", "t.1")), b.deploy(t, function("bomb", "t.b")), b.deploy(t, function("two", "t.2"))
	b.drop(t, 3)
	b.host.taken()[0].crash(bomb)
	all := b.restarts(t, 3)
	for _, name := range []string{"one", "two"} {
		if e := all[name]; e.Offender || e.DelayMS != 0 {
			t.Errorf("innocent: %+v", e)
		}
	}
	if e := all["bomb"]; !e.Offender || e.DelayMS < 50 {
		t.Errorf("offender: %+v", e)
	}
	if got, want := b.live(), [][]string{{one, two}, {bomb}}; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("guests run %v, want %v", got, want)
	}

	// It offends again, and hurts nobody else.
	guests := b.host.taken()
	guests[len(guests)-1].crash(bomb)
	all = b.restarts(t, 1)
	if e := all["bomb"]; len(all) != 1 || !e.Offender || e.DelayMS < 100 || e.Attempt != 2 {
		t.Errorf("after the second time: %+v", all)
	}
	three := b.deploy(t, function("three", "t.3"))
	if got, want := b.live(), [][]string{{one, two, three}, {bomb}}; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("guests run %v, want %v", got, want)
	}
}

func TestSuspectsGoEachAlone(t *testing.T) {
	b := newBench(t, workload.Limits{})
	ids := []string{}
	for i := range 4 {
		ids = append(ids, b.deploy(t, function(fmt.Sprintf("f%d", i), fmt.Sprintf("t.%d", i))))
	}
	b.drop(t, 4)
	b.host.taken()[0].crash(ids[0], ids[2])
	b.restarts(t, 4)
	got := b.live()
	slices.SortFunc(got, slices.Compare)
	if want := [][]string{{ids[0]}, {ids[1], ids[3]}, {ids[2]}}; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("guests run %v, want %v", got, want)
	}
}

// TestOthersFailuresDelayNobody has one guest after the other lost through new
// functions: those that are not to blame come back at once each time.
func TestOthersFailuresDelayNobody(t *testing.T) {
	b := newBench(t, workload.Limits{})
	b.deploy(t, function("innocent", "t.i"))
	b.drop(t, 1)
	for i := range 5 {
		id := b.deploy(t, function(fmt.Sprintf("bomb%d", i), fmt.Sprintf("t.%d", i)))
		b.drop(t, 1)
		for _, g := range b.host.taken() {
			if ids := g.runs(); len(ids) > 1 && slices.Contains(ids, id) {
				g.crash(id)
			}
		}
		if e := b.restarts(t, 2)["innocent"]; e.DelayMS != 0 || e.Attempt != 1 {
			t.Errorf("loss %d: %+v", i, e)
		}
	}
}

func TestLossWithoutSuspectsIsNobodysFault(t *testing.T) {
	b := newBench(t, workload.Limits{})
	one, two := b.deploy(t, function("one", "t.1")), b.deploy(t, function("two", "t.2"))
	b.drop(t, 2)
	b.host.taken()[0].crash()
	for name, e := range b.restarts(t, 2) {
		if e.Offender || e.DelayMS != 0 {
			t.Errorf("%s: %+v", name, e)
		}
	}
	if got, want := b.live(), [][]string{{one, two}}; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("guests run %v, want %v", got, want)
	}
}

// TestDeployThatMeetsALossIsTriedAlone: code that ends its guest while it loads
// is refused, and ends no third guest; who only loaded at the wrong moment runs.
func TestDeployThatMeetsALossIsTriedAlone(t *testing.T) {
	for name, deadly := range map[string]bool{"innocent": false, "deadly": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, workload.Limits{})
			first := b.deploy(t, function("first", "t.1"))
			b.drop(t, 1)
			tries := 0
			b.host.deploy = func(g *fakeGuest, d guest.Deploy, sink guest.Sink) error {
				if d.ID == first {
					return nil
				}
				if tries++; tries > 1 && !deadly {
					return nil
				}
				sink.Lost(guest.FaultOwn)
				g.crash(d.ID)
				return nex.Errorf(nex.Unavailable, "lost")
			}
			slot, err := b.Reserve()
			if err != nil {
				t.Fatal(err)
			}
			_, err = b.Manager.Deploy(t.Context(), slot, function("second", "t.2"))
			if (err != nil) != deadly || tries != 2 {
				t.Errorf("after %d tries: %v", tries, err)
			}
			if m, err := b.request(t, "t.1", "hi"); err != nil || string(m.Data) != "hi" {
				t.Errorf("the first function: %v, %v", m, err)
			}
		})
	}
}

// full makes guests take no more than so many functions.
func full(most int) func(*fakeGuest, guest.Deploy, guest.Sink) error {
	return func(g *fakeGuest, _ guest.Deploy, _ guest.Sink) error {
		if len(g.runs()) >= most {
			return nex.Errorf(nex.Exhausted, "%d are all that one agent can have", most)
		}
		return nil
	}
}

func TestFullGuestsAreFollowedByAnother(t *testing.T) {
	b := newBench(t, workload.Limits{})
	b.host.deploy = full(3)
	ids := []string{}
	for i := range 8 {
		ids = append(ids, b.deploy(t, function(fmt.Sprintf("f%d", i), fmt.Sprintf("t.%d", i))))
	}
	want := [][]string{ids[:3], ids[3:6], ids[6:]}
	if got := b.live(); !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("guests run %v, want %v", got, want)
	}
	// A place that becomes free is taken again.
	if err := b.Stop(t.Context(), ids[1]); err != nil {
		t.Fatal(err)
	}
	again := b.deploy(t, function("again", "t.again"))
	if got := b.live()[0]; !slices.Equal(got, []string{ids[0], ids[2], again}) {
		t.Errorf("the first guest runs %v", got)
	}
	// The last user releases a guest.
	for _, id := range ids[3:6] {
		if err := b.Stop(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.live(); len(got) != 2 || len(b.host.taken()) != 3 {
		t.Errorf("guests run %v", got)
	}
}

func TestDeploysAtOnceFillGuests(t *testing.T) {
	b := newBench(t, workload.Limits{})
	var one sync.Mutex
	room := full(5)
	places := map[*fakeGuest]int{}
	b.host.deploy = func(g *fakeGuest, d guest.Deploy, s guest.Sink) error {
		one.Lock()
		defer one.Unlock()
		if places[g] == 5 {
			return nex.Errorf(nex.Exhausted, "full")
		}
		places[g]++
		return room(g, d, s)
	}
	b.deploy(t, function("first", "t.first")) // what is known to run something is worth another
	var wg sync.WaitGroup
	for i := range 39 {
		wg.Go(func() {
			slot, err := b.Reserve()
			if err == nil {
				_, err = b.Manager.Deploy(t.Context(), slot, function(fmt.Sprintf("f%d", i), fmt.Sprintf("t.%d", i)))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(b.host.taken()); n != 8 {
		t.Errorf("%d guests for 40 functions", n)
	}
}

func TestNewGuestThatRefusesEndsTheDeploy(t *testing.T) {
	b := newBench(t, workload.Limits{})
	b.host.deploy = full(0)
	slot, err := b.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Manager.Deploy(t.Context(), slot, function("f", "t.f"))
	if nex.CodeOf(err) != nex.Exhausted || err.Error() != "Failed to deploy workload: 0 are all that one agent can have" {
		t.Errorf("got %v", err)
	}
	if n := len(b.host.taken()); n != 1 {
		t.Errorf("%d guests were taken", n)
	}
}

func TestGuestsTakeAThousandFunctions(t *testing.T) {
	b := newBench(t, workload.Limits{})
	for i := range 1001 {
		b.deploy(t, function(fmt.Sprintf("f%d", i)))
		b.event(t, nex.WorkloadDeployed{})
	}
	got := b.live()
	if len(got) != 2 || len(got[0]) != 1000 || len(got[1]) != 1 {
		t.Errorf("%d guests", len(got))
	}
}
