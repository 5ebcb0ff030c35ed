package workload_test

import (
	"context"
	"log/slog"
	"testing"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
	"nex/internal/workload"
)

func (b *bench) restore(t *testing.T, id string, s workload.Spec) {
	t.Helper()
	slot, err := b.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	b.Restore(slot, id, s, "d1", 7)
}

// TestRestoredWorkloadsAreTriedUntilTheyRun, and are listed meanwhile.
func TestRestoredWorkloadsAreTriedUntilTheyRun(t *testing.T) {
	b := newBench(t, workload.Limits{Workloads: 1})
	b.host.failTaking(nex.Errorf(nex.Unavailable, "no machine"))
	b.restore(t, "old", function("f", "t.f"))
	if !b.Full() {
		t.Error("it does not count")
	}
	for attempt := range 2 {
		if e := b.event(t, nex.WorkloadRestarting{}).(nex.WorkloadRestarting); e.Attempt != attempt+1 || e.DelayMS == 0 {
			t.Errorf("restarting %+v", e)
		}
	}
	if s := b.summary(t, "old"); s.Healthy || s.Unhealthy != "Failed to get agent client from pool: no machine" || s.Restarts != 7 || s.LastExit != nil {
		t.Errorf("meanwhile: %+v", s)
	}
	b.host.failTaking(nil)
	for e := range b.report.events {
		if e.EventType() == (nex.WorkloadDeployed{}).EventType() {
			break
		}
	}
	if m, err := b.request(t, "t.f", "hi"); err != nil || string(m.Data) != "hi" {
		t.Errorf("%v, %v", m, err)
	}
	if s := b.summary(t, "old"); !s.Healthy || s.Restarts != 7 {
		t.Errorf("afterwards: %+v", s)
	}
}

func TestRestoredWorkloadIsStoppedBeforeItRuns(t *testing.T) {
	b := newBench(t, workload.Limits{})
	b.host.failTaking(nex.Errorf(nex.Unavailable, "no machine"))
	b.restore(t, "old", function("f", "t.f"))
	if err := b.Stop(t.Context(), "old"); err != nil {
		t.Fatal(err)
	}
	if n := len(b.List()); n > 0 {
		t.Errorf("%d workloads are left", n)
	}
	if _, ended := b.journal.told("old"); ended != 1 {
		t.Errorf("the journal heard %d times of its end", ended)
	}
}

// TestJournal hears of restarts and of the end, but not of the node's.
func TestJournal(t *testing.T) {
	b := newBench(t, workload.Limits{})
	s := service("s", true)
	id, stays := b.deploy(t, s), b.deploy(t, function("f", "t.f"))
	b.drop(t, 2)
	b.host.taken()[0].exit(id, guest.Exit{Code: 1})
	b.event(t, nex.WorkloadRestarting{})
	b.event(t, nex.WorkloadDeployed{})
	if restarts, ended := b.journal.told(id); restarts != 1 || ended != 0 {
		t.Errorf("restarts %d, ended %d", restarts, ended)
	}
	if u := b.Usage(id); u == nil || *u != (nex.Usage{CPUMS: 1, MemoryBytes: 2, PIDs: 3}) {
		t.Errorf("the service uses %+v", u)
	}
	if b.Usage(stays) != nil || b.Usage("nobody") != nil {
		t.Error("it is known what functions use, or who is not there")
	}
	if err := b.Stop(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	b.Close(nextest.Patience, func() {})
	if _, ended := b.journal.told(id); ended != 1 {
		t.Errorf("the journal heard %d times of the end", ended)
	}
	if _, ended := b.journal.told(stays); ended != 0 {
		t.Error("the journal takes the end of the node for that of the workload")
	}
}

// TestFetchIsTriedAgain: a server may have just started.
func TestFetchIsTriedAgain(t *testing.T) {
	b := newBench(t, workload.Limits{})
	b.fails.Store(3)
	b.deploy(t, function("f", "t.f"))
	b.fails.Store(4)
	if _, err := b.tryDeploy(t, function("g", "t.g")); err == nil || err.Error() != "Failed to cache workload bytes: no answer" {
		t.Errorf("after four failures: %v", err)
	}
}

// TestFloodOfLogs: an agent that does not bound what its workload logs.
func TestFloodOfLogs(t *testing.T) {
	b := newBench(t, workload.Limits{})
	id := b.deploy(t, service("s", false))
	g := b.host.taken()[0]
	g.mu.Lock()
	sink := g.running[id]
	g.mu.Unlock()
	for range 200_000 {
		sink.Log(slog.LevelInfo, "x")
	}
	if n := b.report.logs.Load(); n < 40_000 || n > 100_000 {
		t.Errorf("%d of 200,000 records went through", n)
	}
}

// TestRestoredWorkloadsCountTowardsTheLimits, though nothing is fetched for them.
func TestRestoredWorkloadsCountTowardsTheLimits(t *testing.T) {
	b := newBench(t, workload.Limits{TotalBytes: 13})
	b.found.Store(true)
	b.restore(t, "old", function("f", "t.f"))
	b.event(t, nex.WorkloadDeployed{})
	if _, err := b.tryDeploy(t, function("g", "t.g")); nex.CodeOf(err) != nex.Exhausted {
		t.Errorf("a workload beyond the limit: %v", err)
	}
	b.restore(t, "older", function("h", "t.h"))
	b.event(t, nex.WorkloadRestarting{})
	if s := b.summary(t, "older"); s.Healthy || s.Unhealthy != "Workload file size would exceed node total limitations" {
		t.Errorf("a restored one beyond the limit: healthy %t, %q", s.Healthy, s.Unhealthy)
	}
	if err := b.Stop(t.Context(), "old"); err != nil {
		t.Fatal(err)
	}
	for e := range b.report.events { // there is room now
		if e.EventType() == (nex.WorkloadDeployed{}).EventType() {
			break
		}
	}
}

// TestJournalHearsLastOfAnEnd: whoever records a workload looks afterwards whether
// it is still there, and must not find one that the journal has heard the end of.
func TestJournalHearsLastOfAnEnd(t *testing.T) {
	b := newBench(t, workload.Limits{})
	heard := make(chan bool, 1)
	b.journal.ending = func(id string) {
		_, listed := b.Get("default", id)
		heard <- listed
	}
	id := b.deploy(t, service("s", false))
	b.host.taken()[0].exit(id, guest.Exit{Code: 1})
	if nextest.Await(t, heard, "the journal to hear of the end") {
		t.Error("the journal hears of the end of a workload that is still listed")
	}
}

// TestForget is for a workload that ended before it was recorded, unless it ended
// with its node.
func TestForget(t *testing.T) {
	b := newBench(t, workload.Limits{})
	b.Forget("gone")
	b.Close(nextest.Patience, func() {})
	b.Forget("comes back")
	if _, ended := b.journal.told("gone"); ended != 1 {
		t.Errorf("the journal heard %d times of the end", ended)
	}
	if _, ended := b.journal.told("comes back"); ended != 0 {
		t.Error("the journal takes the end of the node for that of the workload")
	}
}

// TestStopOfWhatComesBack: whoever stops a workload while its node ends does not
// want it back, whether it has ended by then or not.
func TestStopOfWhatComesBack(t *testing.T) {
	b := newBench(t, workload.Limits{})
	id := b.deploy(t, function("f", "t.f"))
	stays := b.deploy(t, function("g", "t.g"))
	b.Close(nextest.Patience, func() {})
	for _, id := range []string{id, stays} {
		if _, ended := b.journal.told(id); ended != 0 {
			t.Fatal("it does not come back")
		}
		if _, ok := b.Get("default", id); !ok {
			t.Error("it is not known any more")
		}
	}
	if n := len(b.List()); n != 0 {
		t.Errorf("%d workloads are listed", n)
	}
	if err := b.Stop(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, ended := b.journal.told(id); ended != 1 {
		t.Errorf("the journal heard %d times of its end", ended)
	}
	if _, ended := b.journal.told(stays); ended != 0 {
		t.Error("the other one does not come back")
	}
	if err := b.Stop(t.Context(), id); nex.CodeOf(err) != nex.NotFound {
		t.Errorf("again: %v", err)
	}
}

// TestDeployMeetsTheEndOfItsNode is refused for now, and no defect.
func TestDeployMeetsTheEndOfItsNode(t *testing.T) {
	b := newBench(t, workload.Limits{})
	starting, refused := make(chan struct{}), make(chan error, 1)
	b.host.deploy = func(*fakeGuest, guest.Deploy, guest.Sink) error {
		close(starting)
		for _, err := b.Reserve(); err == nil; _, err = b.Reserve() { // until the node ends
		}
		return context.Canceled // as a link says to who gave up
	}
	go func() {
		_, err := b.tryDeploy(t, function("f", "t.f"))
		refused <- err
	}()
	nextest.Await(t, starting, "the start")
	closed := make(chan struct{})
	go func() { b.Close(nextest.Patience, func() {}); close(closed) }()
	if err := nextest.Await(t, refused, "the refusal"); nex.CodeOf(err) != nex.Unavailable {
		t.Errorf("refused as %s: %v", nex.CodeOf(err), err)
	}
	nextest.Await(t, closed, "the end")
}
