package node_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/nextest"
)

// lingering ends 300 ms after it was told to; it says so.
const lingering = `#!/bin/sh
trap 'sleep 0.3; echo ended; exit 0' TERM
echo runs
while :; do sleep 0.05; done
`

// asks answers when it hears something on "go", or after all its time.
const asks = `async () => new TextDecoder().decode(await hostServices.messaging.requestAsync("go", "now"))`

// busyNode runs a service, an idle function, and one in whose call a message
// waits on subject "go".
func busyNode(t *testing.T) (r *rig, goes <-chan *nats.Msg, answer <-chan *nats.Msg) {
	t.Helper()
	s := settings(t)
	s.Defaults.FunctionTimeoutMS = int(nextest.Patience.Milliseconds())
	r = newRig(t, s)
	w := r.upload(t, "svc", nex.Native, []byte(lingering))
	w.Essential = true
	if _, err := r.deploy(t, w); err != nil {
		t.Fatal(err)
	}
	r.mustDeployJS(t, "idle", "js.idle", echo)
	r.mustDeployJS(t, "patient", "js.patient", asks)
	asked := make(chan *nats.Msg, 1)
	sub, err := r.nc.ChanSubscribe("go", asked)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	answers := make(chan *nats.Msg, 1)
	go func() {
		m, err := r.nc.Request("js.patient", nil, nextest.Patience)
		if err != nil {
			m = &nats.Msg{Data: []byte(err.Error())}
		}
		answers <- m
	}()
	return r, asked, answers
}

// drains collects what a node says of its drain until it is done.
func (r *rig) drains(t *testing.T) (said []nex.NodeDraining, order []string) {
	t.Helper()
	for {
		e := nextest.Await(t, r.events, "an event")
		switch data := (struct {
			nex.NodeDraining
			nex.WorkloadUndeployed
		}{}); e.Type() {
		case data.NodeDraining.EventType():
			if err := json.Unmarshal(e.Data(), &data.NodeDraining); err != nil {
				t.Fatal(err)
			}
			if said = append(said, data.NodeDraining); data.Done {
				return said, order
			}
		case data.WorkloadUndeployed.EventType():
			if err := json.Unmarshal(e.Data(), &data.WorkloadUndeployed); err != nil {
				t.Fatal(err)
			}
			order = append(order, data.WorkloadUndeployed.Name)
		}
	}
}

func TestDrain(t *testing.T) {
	r, goes, answer := busyNode(t)
	call := nextest.Await(t, goes, "the call under way")
	for i := range 2 { // the second finds the first under way
		reply, err := r.LameDuck(t.Context(), r.node.NodeID, nex.LameDuckRequest{Drain: true})
		if err != nil || reply.Drain == nil || reply.Drain.Done || reply.Drain.Services != 1 {
			t.Errorf("reply %d: %+v, %v", i, reply, err)
		}
	}
	w := r.upload(t, "late", nex.V8, []byte(echo))
	w.TriggerSubjects = []string{"js.late"}
	if _, err := r.deploy(t, w); nex.CodeOf(err) != nex.LameDuck {
		t.Errorf("deploy: %v", err)
	}
	for p, err := range r.Client.Drain(t.Context(), r.node.NodeID) {
		if err != nil {
			t.Fatal(err)
		}
		if p.Functions == 1 && call != nil { // the idle one has ended, the other has a call
			if err := call.Respond([]byte("gone")); err != nil {
				t.Fatal(err)
			}
			call = nil
		}
		if p.Done && p.Left() > 0 {
			t.Errorf("done with %s", p)
		}
	}
	if m := nextest.Await(t, answer, "the answer"); string(m.Data) != "gone" {
		t.Errorf("the call under way got %q %v", m.Data, m.Header)
	}
	said, order := r.drains(t)
	if got := strings.Join(order, " "); got != "idle patient svc" {
		t.Errorf("workloads ended in the order %s", got)
	}
	first, last := said[0], said[len(said)-1]
	if first.ID != r.node.NodeID || first.Functions != 2 || first.Services != 1 || first.Done || last.Left() != 0 {
		t.Errorf("progress from %+v to %+v", first, last)
	}
	info, err := r.Ping(t.Context(), r.node.NodeID)
	if err != nil || info.Drain == nil || !info.Drain.Done || info.RunningMachines != 0 || !info.LameDuck() {
		t.Errorf("the empty node says %+v, %v", info, err)
	}
	if reply, err := r.LameDuck(t.Context(), r.node.NodeID, nex.LameDuckRequest{Drain: true}); err != nil || reply.Drain == nil || !reply.Drain.Done {
		t.Errorf("the empty node answers %+v, %v", reply, err)
	}
}

// TestNodeThatIsStoppedDrains: as with a request, calls under way are answered
// first and the node says how far it is, until it is gone.
func TestNodeThatIsStoppedDrains(t *testing.T) {
	r, goes, answer := busyNode(t)
	call := nextest.Await(t, goes, "the call under way")
	ended := make(chan struct{})
	go func() { defer close(ended); r.end() }()
	for begun := time.Now(); call != nil && time.Since(begun) < nextest.Patience; {
		for p, err := range r.Client.Drain(t.Context(), r.node.NodeID) {
			if err != nil || call == nil {
				break // it was asked before it heard, or may be gone already
			}
			if p.Functions == 1 {
				if err := call.Respond([]byte("gone")); err != nil {
					t.Fatal(err)
				}
				call = nil
			}
		}
	}
	if call != nil {
		if err := call.Respond([]byte("gone")); err != nil {
			t.Fatal(err)
		}
	}
	if m := nextest.Await(t, answer, "the answer"); string(m.Data) != "gone" {
		t.Errorf("the call under way got %q %v", m.Data, m.Header)
	}
	nextest.Await(t, ended, "the node's end")
	if _, order := r.drains(t); strings.Join(order, " ") != "idle patient svc" {
		t.Errorf("workloads ended in the order %v", order)
	}
	if e := r.await(t, nex.NodeStopped{}); e.Source() != r.node.NodeID {
		t.Errorf("stopped: %v", e)
	}
}

// TestStoppingDuringADrain: the node ends, and says once that it is empty.
func TestStoppingDuringADrain(t *testing.T) {
	r, goes, answer := busyNode(t)
	call := nextest.Await(t, goes, "the call under way")
	if _, err := r.LameDuck(t.Context(), r.node.NodeID, nex.LameDuckRequest{Drain: true}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); r.end() }()
	if err := call.Respond([]byte("gone")); err != nil {
		t.Fatal(err)
	}
	if m := nextest.Await(t, answer, "the answer"); string(m.Data) != "gone" {
		t.Errorf("the call under way got %q %v", m.Data, m.Header)
	}
	nextest.Await(t, ended, "the node's end")
	r.drains(t)
	r.await(t, nex.NodeStopped{})
}

// TestLameDuckAloneEndsNothing: what clients of Nex 0.2.7 send has the effects,
// and the reply, it had.
func TestLameDuckAloneEndsNothing(t *testing.T) {
	r := newRig(t, settings(t))
	r.mustDeployJS(t, "echo", "js.echo", echo)
	m, err := r.nc.Request("$NEX.LAMEDUCK."+r.node.NodeID, nil, nextest.Patience)
	want := `{"type":"io.nats.nex.v1.lameduck_response","data":{"node_id":"` + r.node.NodeID + `","success":true}}`
	if err != nil || string(m.Data) != want {
		t.Errorf("answer %s, %v", m.Data, err)
	}
	if m := r.call(t, "js.echo", []byte("hi")); string(m.Data) != "hi" {
		t.Errorf("what runs goes on: %q", m.Data)
	}
	if info, err := r.Ping(t.Context(), r.node.NodeID); err != nil || info.Drain != nil || info.RunningMachines != 1 {
		t.Errorf("ping %+v, %v", info, err)
	}
}

// TestDrainNeedsItsOwnSignature: a captured command for lame duck mode is no
// command to end anything.
func TestDrainNeedsItsOwnSignature(t *testing.T) {
	admin, _ := nkeys.CreateAccount()
	public, _ := admin.PublicKey()
	s := settings(t)
	s.AdminIssuers = []string{public}
	r := newRig(t, s)
	keys := nex.Keys{Issuer: admin}
	duck, err := keys.LameDuck(r.target())
	if err != nil {
		t.Fatal(err)
	}
	duck.Drain = true
	_, err = r.LameDuck(t.Context(), r.node.NodeID, duck)
	wantRefused(t, "lame duck mode made a drain", err, nex.Unauthorized, "changed after its claims were signed")
	_, err = r.LameDuck(t.Context(), r.node.NodeID, nex.LameDuckRequest{Drain: true})
	wantRefused(t, "nobody", err, nex.Unauthorized, "from its administrators alone")
	drain, err := keys.Drain(r.target())
	if err != nil {
		t.Fatal(err)
	}
	weak := drain
	weak.Drain = false
	_, err = r.LameDuck(t.Context(), r.node.NodeID, weak)
	wantRefused(t, "a drain made lame duck mode", err, nex.Unauthorized, "changed after its claims were signed")
	if reply, err := r.LameDuck(t.Context(), r.node.NodeID, drain); err != nil || reply.Drain == nil {
		t.Errorf("the administrator: %+v, %v", reply, err)
	}
}
