package workload_test

import (
	"testing"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
	"nex/internal/workload"
)

// Who asks for host services is what was deployed, whatever its guest says.
func TestHostServicesKnowWhoAsks(t *testing.T) {
	b := newBench(t, workload.Limits{})
	sinks := make(chan guest.Sink, 1)
	b.host.deploy = func(_ *fakeGuest, _ guest.Deploy, s guest.Sink) error { sinks <- s; return nil }
	for _, name := range []string{"one", "two"} {
		id := b.deploy(t, function(name, name))
		sink := nextest.Await(t, sinks, "the sink")
		m, err := sink.Host(t.Context(), guest.HostCall{ID: "another", Service: "kv"})
		if want := "default/" + name + "/" + id + " kv"; err != nil || string(m.Payload) != want {
			t.Errorf("%q, %v; want %q", m.Payload, err, want)
		}
		if s, ok := b.Get("default", id); !ok || s.Refused != 7 {
			t.Errorf("%+v, %v", s, ok)
		}
		if err := b.Stop(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	if closed := b.hosts.closed.Load(); closed != 2 {
		t.Errorf("%d were closed after two stops", closed)
	}
	b.host.deploy = func(*fakeGuest, guest.Deploy, guest.Sink) error { return nex.Errorf(nex.Invalid, "no") }
	if _, err := b.tryDeploy(t, function("three", "three")); err == nil {
		t.Error("deployed")
	}
}
