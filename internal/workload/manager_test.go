package workload_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
	"nex/internal/workload"
)

func TestDeployedFunctionAnswersTheFirstTrigger(t *testing.T) {
	b := newBench(t, workload.Limits{})
	for i := range 50 {
		subject := fmt.Sprintf("first.%d", i)
		b.deploy(t, function(fmt.Sprintf("f%d", i), subject))
		m, err := b.request(t, subject, "hi")
		if err != nil || string(m.Data) != "hi" {
			t.Fatalf("call %d: %v", i, err)
		}
	}
}

func TestFunctionsOfANamespaceShareAGuest(t *testing.T) {
	b := newBench(t, workload.Limits{})
	first := b.deploy(t, function("a", "t.a"))
	second := b.deploy(t, function("b", "t.b"))
	other := function("c", "t.c")
	other.Namespace = "other"
	b.deploy(t, other)
	b.deploy(t, service("s", false))
	guests := b.host.taken()
	if len(guests) != 3 {
		t.Fatalf("%d guests for two namespaces and a service", len(guests))
	}
	for _, id := range []string{first, second} {
		select {
		case <-guests[0].gone:
			t.Fatal("the shared guest was released while in use")
		default:
		}
		if err := b.Stop(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	nextest.Await(t, guests[0].gone, "the shared guest's release")
}

func TestStopAnswersWhatWasAcceptedAndThenNobody(t *testing.T) {
	b := newBench(t, workload.Limits{})
	entered, release := make(chan struct{}), make(chan struct{})
	b.host.invoke = func(context.Context, guest.Trigger) (guest.Result, error) {
		close(entered)
		<-release
		return guest.Result{Payload: []byte("late")}, nil
	}
	id := b.deploy(t, function("slow", "t.slow"))
	replies := make(chan string, 1)
	go func() {
		m, err := b.nc.Request("t.slow", nil, nextest.Patience)
		if err != nil {
			t.Error(err)
			m = &nats.Msg{}
		}
		replies <- string(m.Data)
	}()
	nextest.Await(t, entered, "the call")
	stopped := make(chan error, 1)
	go func() { stopped <- b.Stop(context.Background(), id) }()
	select {
	case <-stopped:
		t.Fatal("stopped while a call was running")
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if got := nextest.Await(t, replies, "the reply"); got != "late" {
		t.Errorf("got %q", got)
	}
	if err := nextest.Await(t, stopped, "the stop"); err != nil {
		t.Error(err)
	}
	if _, err := b.request(t, "t.slow", ""); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("after the stop: %v", err)
	}
	b.event(t, nex.WorkloadDeployed{})
	b.event(t, nex.WorkloadUndeployed{})
	if err := b.Stop(t.Context(), id); nex.CodeOf(err) != nex.NotFound {
		t.Errorf("stopped again: %v", err)
	}
}

// TestAnswersGiveNoCommands: who calls a function does not choose where the
// node speaks with its permissions. The function runs.
func TestAnswersGiveNoCommands(t *testing.T) {
	b := newBench(t, workload.Limits{})
	b.deploy(t, function("f", "t.f"))
	heard, err := b.nc.SubscribeSync("$NEX.LAMEDUCK.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.nc.PublishRequest("t.f", "$NEX.LAMEDUCK.N1", nil); err != nil {
		t.Fatal(err)
	}
	nextest.Await(t, b.report.calls, "the call's record") // made after the answer
	if _, err := b.request(t, "t.f", ""); err != nil {
		t.Fatal(err)
	}
	if m, err := heard.NextMsg(time.Nanosecond); err == nil {
		t.Errorf("the node said %q on %s", m.Data, m.Subject)
	}
}

func TestErrorsReachTheCallerTyped(t *testing.T) {
	b := newBench(t, workload.Limits{})
	b.host.invoke = func(ctx context.Context, tr guest.Trigger) (guest.Result, error) {
		switch string(tr.Payload) {
		case "throw":
			return guest.Result{}, nex.Errorf(nex.Exception, "Error: boom\nat echo.js:1")
		case "hang":
			<-ctx.Done()
			return guest.Result{}, ctx.Err()
		case "big":
			return guest.Result{Payload: make([]byte, 2<<20)}, nil
		}
		return guest.Result{}, nil
	}
	s := function("f", "t.err")
	s.Settings.FunctionTimeoutMS = 200
	b.deploy(t, s)
	for payload, want := range map[string]struct {
		code   nex.Code
		status string
	}{"throw": {nex.Exception, "500"}, "hang": {nex.Timeout, "504"}, "big": {nex.BadReply, "502"}} {
		m, err := b.request(t, "t.err", payload)
		if err != nil {
			t.Fatal(err)
		}
		var e nex.Error
		if err := json.Unmarshal(m.Data, &e); err != nil || e.Code != want.code || m.Header.Get("Nats-Service-Error-Code") != want.status {
			t.Errorf("%s: %s with headers %v", payload, m.Data, m.Header)
		}
		if h := m.Header.Get("Nats-Service-Error"); h == "" || strings.ContainsAny(h, "\r\n") {
			t.Errorf("%s: error header %q", payload, h)
		}
		if c := nextest.Await(t, b.report.calls, "the call's record"); nex.CodeOf(c.Err) != want.code || c.Trigger != "t.err" {
			t.Errorf("%s: recorded as %+v", payload, c)
		}
	}
	if m, err := b.request(t, "t.err", ""); err != nil || len(m.Data) != 0 || len(m.Header) != 0 {
		t.Errorf("an empty reply came as %v, %v", m, err)
	}
}

func TestLostGuestIsReplacedUnderTheSameID(t *testing.T) {
	b := newBench(t, workload.Limits{})
	id := b.deploy(t, function("f", "t.f"))
	sid := b.deploy(t, service("s", false))
	b.event(t, nex.WorkloadDeployed{})
	b.event(t, nex.WorkloadDeployed{})
	for _, g := range b.host.taken() {
		g.Release()
	}
	m, err := b.request(t, "t.f", "still there")
	if err != nil || string(m.Data) != "still there" {
		t.Fatalf("after the loss: %v, %v", m, err)
	}
	for range 2 {
		for _, want := range []nex.EventData{nex.WorkloadRestarting{}, nex.WorkloadDeployed{}} {
			_ = want
			nextest.Await(t, b.report.events, "restart events")
		}
	}
	for _, want := range []string{id, sid} {
		if s, ok := b.Get("default", want); !ok || !s.Healthy {
			t.Errorf("workload %s: %+v", want, s)
		}
	}
}

func TestEssentialServicesStartAgainWhenTheyFail(t *testing.T) {
	b := newBench(t, workload.Limits{})
	id := b.deploy(t, service("s", true))
	b.event(t, nex.WorkloadDeployed{})
	b.host.taken()[0].exit(id, guest.Exit{Code: 3, Message: "exit status 3"})
	r := b.event(t, nex.WorkloadRestarting{}).(nex.WorkloadRestarting)
	if r.Attempt != 1 || r.Reason != "exit status 3" || r.DelayMS == 0 {
		t.Errorf("restart %+v", r)
	}
	b.event(t, nex.WorkloadDeployed{})
	guests := b.host.taken()
	guests[len(guests)-1].exit(id, guest.Exit{Code: 0, Message: "exit status 0"})
	u := b.event(t, nex.WorkloadUndeployed{}).(nex.WorkloadUndeployed)
	if u.Code != 0 || !strings.HasPrefix(u.Message, "Exited workload: s; vm: "+id) {
		t.Errorf("undeployed %+v", u)
	}
}

func TestOrdinaryServicesStayEnded(t *testing.T) {
	b := newBench(t, workload.Limits{})
	id := b.deploy(t, service("s", false))
	b.event(t, nex.WorkloadDeployed{})
	b.host.taken()[0].exit(id, guest.Exit{Code: 7})
	if u := b.event(t, nex.WorkloadUndeployed{}).(nex.WorkloadUndeployed); u.Code != 7 {
		t.Errorf("undeployed %+v", u)
	}
	nextest.Await(t, b.host.taken()[0].gone, "the guest's release")
}

func TestLameDuckEndsRestarts(t *testing.T) {
	b := newBench(t, workload.Limits{})
	id := b.deploy(t, service("s", true))
	b.EndRestarts()
	b.event(t, nex.WorkloadDeployed{})
	b.host.taken()[0].exit(id, guest.Exit{Code: 1})
	b.event(t, nex.WorkloadUndeployed{})
}

// TestLameDuckEndsRestartsToCome: the service has ended already.
func TestLameDuckEndsRestartsToCome(t *testing.T) {
	b := newBench(t, workload.Limits{})
	id := b.deploy(t, service("s", true))
	b.event(t, nex.WorkloadDeployed{})
	b.host.taken()[0].exit(id, guest.Exit{Code: 1})
	b.event(t, nex.WorkloadRestarting{})
	b.EndRestarts()
	b.event(t, nex.WorkloadUndeployed{})
}

func TestFailedDeployLeavesNothing(t *testing.T) {
	b := newBench(t, workload.Limits{})
	fail := func(spec workload.Spec) error {
		t.Helper()
		slot, err := b.Reserve()
		if err != nil {
			t.Fatal(err)
		}
		_, err = b.Manager.Deploy(t.Context(), slot, spec)
		if err == nil {
			t.Fatal("deployed")
		}
		if n := len(b.List()); n > 0 {
			t.Errorf("%d workloads are listed", n)
		}
		return err
	}
	b.host.failTaking(nex.Errorf(nex.Unavailable, "no machine"))
	if err := fail(function("f", "t.f")); err.Error() != "Failed to get agent client from pool: no machine" {
		t.Errorf("got %v", err)
	}
	b.host.failTaking(nil)
	b.host.deploy = func(*fakeGuest, guest.Deploy, guest.Sink) error {
		return nex.Errorf(nex.Invalid, "echo.js:1:1: SyntaxError")
	}
	if err := fail(function("f", "t.f")); err.Error() != "Failed to deploy workload: workload rejected by agent: echo.js:1:1: SyntaxError" {
		t.Errorf("got %v", err)
	}
	b.host.deploy = nil
	if _, err := b.request(t, "t.f", ""); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("somebody answers: %v", err)
	}
}

func TestDeployThatIsGivenUpLeavesNothing(t *testing.T) {
	b := newBench(t, workload.Limits{})
	release := make(chan struct{})
	b.host.deploy = func(*fakeGuest, guest.Deploy, guest.Sink) error { <-release; return nil }
	slot, err := b.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	failed := make(chan error, 1)
	go func() { _, err := b.Manager.Deploy(ctx, slot, function("f", "t.f")); failed <- err }()
	<-ctx.Done()
	close(release)
	if err := nextest.Await(t, failed, "the deploy"); nex.CodeOf(err) != nex.Timeout {
		t.Errorf("got %v", err)
	}
	if n := len(b.List()); n > 0 {
		t.Errorf("%d workloads are listed", n)
	}
}

func TestLimitsHoldForDeploysAtOnce(t *testing.T) {
	b := newBench(t, workload.Limits{Workloads: 3})
	var wg sync.WaitGroup
	var mu sync.Mutex
	deployed := 0
	for i := range 20 {
		wg.Go(func() {
			slot, err := b.Reserve()
			if err != nil {
				if nex.CodeOf(err) != nex.Exhausted {
					t.Error(err)
				}
				return
			}
			defer slot.Release()
			if _, err := b.Manager.Deploy(t.Context(), slot, function(fmt.Sprintf("f%d", i), fmt.Sprintf("t.%d", i))); err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			deployed++
		})
	}
	wg.Wait()
	if deployed != 3 || len(b.List()) != 3 {
		t.Errorf("%d deployed, %d listed, limit 3", deployed, len(b.List()))
	}
}

func TestByteLimits(t *testing.T) {
	for name, limits := range map[string]workload.Limits{"one": {WorkloadBytes: 6}, "total": {TotalBytes: 13}} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, limits)
			if name == "total" {
				b.deploy(t, function("fits", "t.1"))
			}
			slot, err := b.Reserve()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Manager.Deploy(t.Context(), slot, function("f", "t.f")); nex.CodeOf(err) != nex.Exhausted {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCallsBeyondTheWindowAreRefusedAtOnce(t *testing.T) {
	b := newBench(t, workload.Limits{})
	release := make(chan struct{})
	b.host.invoke = func(context.Context, guest.Trigger) (guest.Result, error) {
		<-release
		return guest.Result{}, nil
	}
	s := function("f", "t.f")
	s.Settings.FunctionTimeoutMS = int(nextest.Patience.Milliseconds())
	b.deploy(t, s)
	inbox := b.nc.NewRespInbox()
	sub, err := b.nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	const calls = 1100
	for range calls {
		if err := b.nc.PublishRequest("t.f", inbox, nil); err != nil {
			t.Fatal(err)
		}
	}
	overloaded := 0
	for range calls - 1024 {
		m, err := sub.NextMsg(nextest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		if m.Header.Get("Nats-Service-Error-Code") == "503" {
			overloaded++
		}
	}
	close(release)
	for range 1024 {
		if _, err := sub.NextMsg(nextest.Patience); err != nil {
			t.Fatal(err)
		}
	}
	if overloaded != calls-1024 {
		t.Errorf("%d calls refused", overloaded)
	}
}

func TestReplicasShareTheWork(t *testing.T) {
	b := newBench(t, workload.Limits{})
	for range 3 {
		b.deploy(t, function("same", "t.same", "t.>"))
	}
	const calls = 100
	for range calls {
		if err := b.nc.Publish("t.same", nil); err != nil {
			t.Fatal(err)
		}
	}
	for range calls {
		nextest.Await(t, b.report.calls, "a call")
	}
	m, err := b.request(t, "t.same", "one more")
	if err != nil || string(m.Data) != "one more" {
		t.Fatal(err)
	}
	nextest.Await(t, b.report.calls, "the last call")
	select {
	case c := <-b.report.calls:
		t.Errorf("a message was answered twice: %+v", c)
	default:
	}
}

func TestStopWithoutAGuestAnswersWhatWaits(t *testing.T) {
	b := newBench(t, workload.Limits{})
	s := function("f", "t.f")
	s.Settings.FunctionTimeoutMS = int(10 * nextest.Patience.Milliseconds())
	id := b.deploy(t, s)
	b.host.failTaking(nex.Errorf(nex.Unavailable, "no machine"))
	b.host.taken()[0].Release()
	b.event(t, nex.WorkloadDeployed{})
	b.event(t, nex.WorkloadRestarting{})
	inbox := b.nc.NewRespInbox()
	sub, err := b.nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(b.nc.PublishRequest("t.f", inbox, nil), b.nc.Flush()); err != nil {
		t.Fatal(err)
	}
	if err := b.Stop(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if m, err := sub.NextMsg(nextest.Patience); err != nil || m.Header.Get("Nats-Service-Error-Code") != "503" {
		t.Errorf("the waiting call got %v, %v", m, err)
	}
}

// TestStopsAtOnceLoseNoCall stops a workload twice at the same time while
// others call it.
func TestStopsAtOnceLoseNoCall(t *testing.T) {
	b := newBench(t, workload.Limits{})
	for round := range 20 {
		id := b.deploy(t, function(fmt.Sprintf("f%d", round), "t.f"))
		var callers, stops sync.WaitGroup
		for range 8 {
			callers.Go(func() {
				for {
					_, err := b.nc.Request("t.f", nil, nextest.Patience)
					if errors.Is(err, nats.ErrNoResponders) {
						return
					}
					if err != nil {
						t.Errorf("a call went unanswered: %v", err)
						return
					}
				}
			})
		}
		for range 2 {
			stops.Go(func() {
				if err := b.Stop(t.Context(), id); err != nil && nex.CodeOf(err) != nex.NotFound {
					t.Error(err)
				}
			})
		}
		stops.Wait()
		callers.Wait()
	}
}

// TestCallsMeetingALostGuestWaitForTheNext calls without a pause while guests
// are lost: a call that never reached a guest must not fail.
func TestCallsMeetingALostGuestWaitForTheNext(t *testing.T) {
	b := newBench(t, workload.Limits{})
	b.deploy(t, function("f", "t.f"))
	b.event(t, nex.WorkloadDeployed{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 5 {
			guests := b.host.taken()
			guests[len(guests)-1].Release()
			b.event(t, nex.WorkloadRestarting{})
			b.event(t, nex.WorkloadDeployed{})
		}
	}()
	for {
		m, err := b.request(t, "t.f", "x")
		if err != nil || string(m.Data) != "x" {
			t.Fatalf("got %v, %v", m, err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}
