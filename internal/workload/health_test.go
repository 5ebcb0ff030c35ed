package workload_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
	"nex/internal/workload"
)

// answering is a probe that a test switches on and off.
type answering struct{ well atomic.Bool }

func (a *answering) err() error {
	if a.well.Load() {
		return nil
	}
	return nex.Errorf(nex.Unavailable, "port 8080 does not answer")
}

func (b *bench) summary(t *testing.T, id string) workload.Summary {
	t.Helper()
	s, ok := b.Get("default", id)
	if !ok {
		t.Fatal("the workload is not there")
	}
	return s
}

func TestReady(t *testing.T) {
	for name, ready := range map[string]nex.Ready{
		"port":          {TCPPort: 8080, EveryMS: 100},
		"path":          {TCPPort: 8080, HTTPPath: "/live", EveryMS: 100},
		"subject":       {Subject: "svc.ready", EveryMS: 100},
		"micro service": {Micro: "svc", EveryMS: 100},
	} {
		t.Run(name, func(t *testing.T) {
			var a answering
			b := newBench(t, workload.Limits{})
			b.host.probe = func(p guest.Probe) error {
				if p.Port != 8080 || p.Path != ready.HTTPPath || p.TimeoutMS != 1000 {
					t.Errorf("probe %+v", p)
				}
				return a.err()
			}
			b.hosts.answers = func(r nex.Ready) error {
				if r != ready {
					t.Errorf("asked %+v", r)
				}
				return a.err()
			}
			s := service("s", false)
			s.Settings.Ready = ready
			id := b.deploy(t, s)
			b.event(t, nex.WorkloadDeployed{})
			if s := b.summary(t, id); s.Healthy || !strings.HasPrefix(s.Unhealthy, "not ready yet") {
				t.Errorf("before: healthy %t, %q", s.Healthy, s.Unhealthy)
			}
			for range 2 { // it gets well, ill, and well again
				a.well.Store(true)
				if e := b.event(t, nex.WorkloadHealth{}).(nex.WorkloadHealth); !e.Healthy || e.Reason != "" {
					t.Errorf("event %+v", e)
				}
				if s := b.summary(t, id); !s.Healthy || s.Unhealthy != "" {
					t.Errorf("healthy %t, %q", s.Healthy, s.Unhealthy)
				}
				a.well.Store(false)
				if e := b.event(t, nex.WorkloadHealth{}).(nex.WorkloadHealth); e.Healthy || e.Reason != "port 8080 does not answer" {
					t.Errorf("event %+v", e)
				}
				if s := b.summary(t, id); s.Healthy || s.Unhealthy != "port 8080 does not answer" {
					t.Errorf("healthy %t, %q", s.Healthy, s.Unhealthy)
				}
			}
			if err := b.Stop(t.Context(), id); err != nil {
				t.Error(err)
			}
			b.event(t, nex.WorkloadUndeployed{})
		})
	}
}

func TestReadyAfterSomeTime(t *testing.T) {
	b := newBench(t, workload.Limits{})
	s := service("s", false)
	s.Settings.Ready = nex.Ready{AfterMS: 200}
	id := b.deploy(t, s)
	b.event(t, nex.WorkloadDeployed{})
	if s := b.summary(t, id); s.Healthy {
		t.Error("healthy at once")
	}
	b.event(t, nex.WorkloadHealth{})
	if s := b.summary(t, id); !s.Healthy {
		t.Error("not healthy")
	}
}

// TestNotReadyInTime: that is a failure, for the policy too.
func TestNotReadyInTime(t *testing.T) {
	b := newBench(t, workload.Limits{})
	b.host.probe = func(guest.Probe) error { return errors.New("nobody is there") }
	s := service("s", true)
	s.Settings.Ready = nex.Ready{TCPPort: 1, WithinMS: 100}
	s.Settings.Restart.MaxAttempts = 2
	id := b.deploy(t, s)
	const reason = "the service was not ready within 100ms: nobody is there"
	for attempt := range 2 {
		b.event(t, nex.WorkloadDeployed{})
		if e := b.event(t, nex.WorkloadRestarting{}).(nex.WorkloadRestarting); e.Attempt != attempt+1 || e.Reason != reason {
			t.Errorf("restart %+v", e)
		}
		s := b.summary(t, id)
		if s.Restarts != attempt+1 || s.LastExit == nil || s.LastExit.Reason != reason || s.LastExit.At.IsZero() {
			t.Errorf("summary %+v, last exit %+v", s, s.LastExit)
		}
	}
	b.event(t, nex.WorkloadDeployed{})
	e := b.event(t, nex.WorkloadUndeployed{}).(nex.WorkloadUndeployed)
	if !strings.HasSuffix(e.Message, "given up after 2 restarts in a row") {
		t.Errorf("undeployed %+v", e)
	}
	for _, g := range b.host.taken() {
		nextest.Await(t, g.gone, "the guest's release")
	}
}

// TestLastExit: what is told of a service that was started again.
func TestLastExit(t *testing.T) {
	b := newBench(t, workload.Limits{})
	s := service("s", false)
	s.Settings.Restart.Policy = nex.RestartAlways
	id := b.deploy(t, s)
	b.event(t, nex.WorkloadDeployed{})
	if s := b.summary(t, id); s.LastExit != nil || s.Restarts != 0 {
		t.Errorf("before: %+v", s)
	}
	b.host.taken()[0].exit(id, guest.Exit{Code: 3, Message: "exit status 3"})
	b.event(t, nex.WorkloadRestarting{})
	b.event(t, nex.WorkloadDeployed{})
	if s := b.summary(t, id); s.Restarts != 1 || s.LastExit == nil || s.LastExit.Code != 3 || s.LastExit.Reason != "exit status 3" || !s.Healthy {
		t.Errorf("after: %+v, %+v", s, s.LastExit)
	}
}

// TestExitBeforeTheMachine: a service that ended has ended, also when its machine
// is lost in the same moment.
func TestExitBeforeTheMachine(t *testing.T) {
	b := newBench(t, workload.Limits{})
	b.host.deploy = func(g *fakeGuest, _ guest.Deploy, sink guest.Sink) error {
		sink.Exited(guest.Exit{Code: 7})
		g.Release()
		return nil
	}
	for range 20 {
		b.deploy(t, service("s", false))
		b.event(t, nex.WorkloadDeployed{})
		if e := b.event(t, nex.WorkloadUndeployed{}).(nex.WorkloadUndeployed); e.Code != 7 {
			t.Errorf("undeployed %+v", e)
		}
	}
}

// TestStoppedIsNotGivenUp: it would have been started again.
func TestStoppedIsNotGivenUp(t *testing.T) {
	b := newBench(t, workload.Limits{})
	s := service("s", true)
	s.Settings.Restart.MaxAttempts = 1
	id := b.deploy(t, s)
	b.event(t, nex.WorkloadDeployed{})
	b.host.taken()[0].exit(id, guest.Exit{Code: 3})
	b.event(t, nex.WorkloadRestarting{})
	b.EndRestarts() // before the restart
	if err := b.Stop(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if e := b.event(t, nex.WorkloadUndeployed{}).(nex.WorkloadUndeployed); strings.Contains(e.Message, "given up") {
		t.Errorf("undeployed %+v", e)
	}
}
