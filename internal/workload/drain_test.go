package workload_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
	"nex/internal/workload"
)

// TestDrainEndsFunctionsThenServices: a call under way is answered, and the
// services it may need are there until then.
func TestDrainEndsFunctionsThenServices(t *testing.T) {
	b := newBench(t, workload.Limits{})
	entered, release := make(chan struct{}), make(chan struct{})
	b.host.invoke = func(context.Context, guest.Trigger) (guest.Result, error) {
		close(entered)
		<-release
		return guest.Result{Payload: []byte("late")}, nil
	}
	b.deploy(t, service("svc", true))
	b.deploy(t, function("slow", "t.slow"))
	b.deploy(t, function("idle", "t.idle"))
	for range 3 {
		b.event(t, nex.WorkloadDeployed{})
	}
	replies := b.ask("t.slow")
	nextest.Await(t, entered, "the call")

	told, drained := make(chan string, 10), make(chan struct{})
	go func() {
		defer close(drained)
		b.Drain(workload.NoLimit, func() { told <- fmt.Sprint(b.Left()) })
	}()
	if got := nextest.Await(t, told, "the idle function's end"); got != "1 1" {
		t.Errorf("left %s", got)
	}
	if e := b.event(t, nex.WorkloadUndeployed{}); e.(nex.WorkloadUndeployed).Name != "idle" {
		t.Errorf("%+v ended first", e)
	}
	if _, err := b.Reserve(); nex.CodeOf(err) != nex.LameDuck {
		t.Errorf("a new workload: %v", err)
	}
	for deadline := time.Now().Add(nextest.Patience); b.heard("t.slow"); {
		if time.Now().After(deadline) {
			t.Fatal("the slow function still hears messages")
		}
	}
	if err := b.nc.PublishRequest("t.slow", b.nc.NewInbox(), nil); err != nil { // nobody hears it
		t.Fatal(err)
	}
	select {
	case <-told:
		t.Fatal("something ended while a call was under way")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if got := nextest.Await(t, replies, "the reply"); got != "late" {
		t.Errorf("the call under way was answered %q", got)
	}
	nextest.Await(t, drained, "the end")
	for _, want := range []string{"0 1", "0 0"} {
		if got := nextest.Await(t, told, "progress"); got != want {
			t.Errorf("left %s, want %s", got, want)
		}
	}
	for _, want := range []string{"slow", "svc"} {
		if e := b.event(t, nex.WorkloadUndeployed{}); e.(nex.WorkloadUndeployed).Name != want {
			t.Errorf("%+v ended, want %s", e, want)
		}
	}
}

// TestSecondDrainHastensTheFirst: a node that is being stopped does not wait
// for calls as long as one that was asked to drain.
func TestSecondDrainHastensTheFirst(t *testing.T) {
	b := newBench(t, workload.Limits{})
	entered := make(chan struct{})
	b.host.invoke = func(ctx context.Context, _ guest.Trigger) (guest.Result, error) {
		close(entered)
		select {
		case <-b.host.taken()[0].gone: // calls end with their guest
			return guest.Result{}, nex.Errorf(nex.Unavailable, "lost")
		case <-ctx.Done():
			return guest.Result{}, ctx.Err()
		}
	}
	s := function("slow", "t.slow")
	s.Settings.FunctionTimeoutMS = int((2 * nextest.Patience).Milliseconds())
	b.deploy(t, s)
	b.ask("t.slow")
	nextest.Await(t, entered, "the call")
	first := make(chan struct{})
	go func() { defer close(first); b.Drain(workload.NoLimit, func() {}) }()
	for {
		if slot, err := b.Reserve(); err != nil {
			break // it has begun
		} else {
			slot.Release()
		}
	}
	const calls = 100 * time.Millisecond
	if bound := b.DrainBound(calls); bound < calls || bound > 10*time.Second {
		t.Errorf("it may take %s", bound)
	}
	second := make(chan struct{})
	go func() { defer close(second); b.Drain(calls, func() {}) }()
	nextest.Await(t, second, "the second drain")
	nextest.Await(t, first, "the first drain")
	if functions, services := b.Left(); functions+services > 0 {
		t.Errorf("%d functions and %d services left", functions, services)
	}
}

// TestDrainEndsWhatIsStarting: a deploy under way is told, and leaves nothing.
func TestDrainEndsWhatIsStarting(t *testing.T) {
	b := newBench(t, workload.Limits{})
	loading, load := make(chan struct{}), make(chan struct{})
	b.host.deploy = func(*fakeGuest, guest.Deploy, guest.Sink) error {
		close(loading)
		<-load
		return nil
	}
	slot, err := b.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		_, err := b.Manager.Deploy(context.Background(), slot, service("svc", true))
		answer <- err
	}()
	nextest.Await(t, loading, "the deploy")
	drained := make(chan struct{})
	go func() { defer close(drained); b.Drain(time.Second, func() {}) }()
	select {
	case <-drained:
		t.Fatal("drained while something was starting")
	case <-time.After(20 * time.Millisecond):
	}
	close(load)
	nextest.Await(t, drained, "the drain")
	nextest.Await(t, answer, "the deploy's answer")
	if functions, services := b.Left(); functions+services > 0 {
		t.Errorf("%d functions and %d services left", functions, services)
	}
}

// ask calls a function and returns where its answer comes.
func (b *bench) ask(subject string) <-chan string {
	replies := make(chan string, 1)
	go func() {
		m, err := b.nc.Request(subject, nil, nextest.Patience)
		if err != nil {
			m = &nats.Msg{Data: []byte(err.Error())}
		}
		replies <- string(m.Data)
	}()
	return replies
}
