package guest_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"nex"
	"nex/internal/guest"
)

// crowd is a guest with three workloads: calls of "busy" and "other" do not
// end, and nobody calls "idle".
type crowd struct {
	peers
	faults map[string]chan guest.Fault
	ends   chan error // of the calls
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	release := make(chan struct{})
	c := &crowd{faults: map[string]chan guest.Fault{}, ends: make(chan error, 10)}
	c.peers = connect(t, &agent{invoke: func(context.Context, guest.Trigger) (guest.Result, error) {
		<-release
		return guest.Result{}, nil
	}})
	t.Cleanup(func() { close(release) }) // before the agent is waited for
	for _, id := range []string{"busy", "other", "idle"} {
		ch := make(chan guest.Fault, 1)
		c.faults[id] = ch
		sink := guest.Sink{Log: func(slog.Level, string) {}, Lost: func(f guest.Fault) { ch <- f }}
		if err := c.Deploy(t.Context(), guest.Deploy{ID: id}, strings.NewReader("x"), sink); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// begin makes calls that are due then.
func (c *crowd) begin(due time.Duration, ids ...string) {
	for _, id := range ids {
		c.Client.Invoke(guest.Trigger{ID: id, Timeout: time.Hour}, time.Now().Add(due), true, func(_ guest.Result, err error) { c.ends <- err })
	}
}

func (c *crowd) want(t *testing.T, want map[string]guest.Fault) {
	t.Helper()
	await(t, c.Done(), "the link to end")
	for id, ch := range c.faults {
		select {
		case got := <-ch:
			if w, told := want[id]; !told || got != w {
				t.Errorf("%s was told fault %d, want %d (%v)", id, got, w, told)
			}
		default:
			if _, told := want[id]; told {
				t.Errorf("%s was not told before the end of the link", id)
			}
		}
	}
}

func TestWhoseFaultALossMayBe(t *testing.T) {
	t.Run("nobody ran", func(t *testing.T) {
		c := newCrowd(t)
		c.hangUp()
		c.want(t, map[string]guest.Fault{"busy": guest.FaultUnknown, "other": guest.FaultUnknown, "idle": guest.FaultUnknown})
	})
	t.Run("crash", func(t *testing.T) {
		c := newCrowd(t)
		c.begin(time.Hour, "busy", "other", "busy")
		go c.hangUp()
		c.want(t, map[string]guest.Fault{"busy": guest.FaultOwn, "other": guest.FaultOwn, "idle": guest.FaultOthers})
	})
	t.Run("crash with a crowd", func(t *testing.T) {
		c := newCrowd(t)
		c.begin(time.Hour, "busy", "1", "2", "3", "4", "5", "6", "7", "8")
		go c.hangUp()
		c.want(t, map[string]guest.Fault{"busy": guest.FaultCrowd, "other": guest.FaultOthers, "idle": guest.FaultOthers})
	})
	t.Run("hang", func(t *testing.T) {
		c := newCrowd(t)
		c.begin(time.Hour, "other")
		c.begin(20*time.Millisecond, "busy")
		if err := receive(t, c.ends); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the late call: %v", err)
		}
		c.want(t, map[string]guest.Fault{"busy": guest.FaultOwn, "other": guest.FaultOthers, "idle": guest.FaultOthers})
	})
	t.Run("closed by the node", func(t *testing.T) {
		c := newCrowd(t)
		c.begin(time.Hour, "busy")
		c.Close()
		c.want(t, nil)
	})
}

// TestAgentNamesTheCulprit: what an agent says of a workload that was not
// deployed on it counts for nothing.
func TestAgentNamesTheCulprit(t *testing.T) {
	c := newCrowd(t)
	c.begin(time.Hour, "other")
	c.begin(20*time.Millisecond, "busy") // it is late already for the agent
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	c.server.GiveUp(ctx, "unknown")
	if c.Err() != nil {
		t.Fatalf("the link ended: %v", c.Err())
	}
	c.server.GiveUp(context.Background(), "busy")
	c.want(t, map[string]guest.Fault{"busy": guest.FaultOwn, "other": guest.FaultOthers, "idle": guest.FaultOthers})
	late, lost := 0, 0
	for range 2 {
		switch err := receive(t, c.ends); {
		case errors.Is(err, context.DeadlineExceeded):
			late++
		case nex.CodeOf(err) == nex.Unavailable:
			lost++
		}
	}
	if late != 1 || lost != 1 {
		t.Errorf("%d calls were late and %d lost", late, lost)
	}
}

func TestDeployThatLosesTheGuestIsToBlame(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	c := connect(t, &agent{deploy: func(context.Context, guest.Deploy) error {
		close(entered)
		<-release
		return nil
	}})
	faults := make(chan guest.Fault, 1)
	failed := make(chan error, 1)
	go func() {
		failed <- c.Deploy(context.Background(), guest.Deploy{ID: "w"}, strings.NewReader("x"), guest.Sink{Lost: func(f guest.Fault) { faults <- f }})
	}()
	await(t, entered, "the deploy")
	go c.hangUp()
	if err := receive(t, failed); nex.CodeOf(err) != nex.Unavailable {
		t.Errorf("the deploy: %v", err)
	}
	if f := receive(t, faults); f != guest.FaultOwn {
		t.Errorf("fault %d", f)
	}
}
