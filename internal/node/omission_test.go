package node_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/nextest"
)

// senseless are bodies that say nothing.
func senseless() map[string][]byte {
	noise := make([]byte, 1<<20)
	source := rand.NewChaCha8([32]byte{})
	_, _ = source.Read(noise) // never fails
	return map[string][]byte{"nothing": nil, "null": []byte("null"), "object": []byte("{}"), "array": []byte("[]"), "noise": noise}
}

// errands are requests whose replies are counted until the node has ended.
type errands struct {
	*rig
	subs map[string]*nats.Subscription
}

func newErrands(r *rig) *errands { return &errands{rig: r, subs: map[string]*nats.Subscription{}} }

// run sends one request and returns the answer to it.
func (e *errands) run(t *testing.T, what, subject string, body []byte) answer {
	t.Helper()
	e.send(t, what, subject, body)
	m, err := e.subs[what].NextMsg(nextest.Patience)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	a := answerOf(t, m)
	if a.Error != "" && (!a.Code.Known() || a.Code == nex.Internal || len(a.Error) > 1<<10 || strings.ContainsAny(a.Error, "\r\n")) {
		t.Errorf("%s: %s: %q", what, a.Code, a.Error)
	}
	return a
}

func (e *errands) send(t *testing.T, what, subject string, body []byte) {
	t.Helper()
	inbox := e.nc.NewInbox()
	sub, err := e.nc.SubscribeSync(inbox)
	if err == nil {
		err = e.nc.PublishRequest(subject, inbox, body)
	}
	if err != nil {
		t.Fatal(err)
	}
	if e.subs[what] != nil {
		t.Fatalf("%s: twice", what)
	}
	e.subs[what] = sub
}

// finish ends the node: what is not answered by then will not be.
func (e *errands) finish(t *testing.T) {
	t.Helper()
	e.end()
	if err := e.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for what, sub := range e.subs {
		if n, _, err := sub.Pending(); n > 0 || err != nil {
			t.Errorf("%s: %d answers too many, %v", what, n, err)
		}
	}
}

// works deploys something, calls it and stops it.
func (r *rig) works(t *testing.T) {
	t.Helper()
	id := r.mustDeployJS(t, "works", "t.works", echo)
	if m := r.call(t, "t.works", []byte("yes")); string(m.Data) != "yes" {
		t.Errorf("a call is answered %q %v", m.Data, m.Header)
	}
	if err := r.stop(t, "works", id); err != nil {
		t.Error(err)
	}
}

// TestSenselessBodies puts nothing, and much of it, on every control subject.
func TestSenselessBodies(t *testing.T) {
	s := settings(t)
	s.AdminIssuers = []string{"ACFIRY65OQE7DFP5KLNS2PF2LVZMUZYJX4OZIEQ36N2IQANUB5XVYYOU"}
	r := newRig(t, s)
	id := r.node.NodeID
	e := newErrands(r)
	r.mustDeployJS(t, "steady", "t.steady", echo)
	for what, body := range senseless() {
		for subject, code := range map[string]nex.Code{
			"$NEX.PING": "", "$NEX.PING." + id: "", "$NEX.AUCTION": "", "$NEX.WPING.default": "", "$NEX.WPING.default.steady": "",
			"$NEX.INFO.default." + id: "", "$NEX.INFO.nowhere." + id: "", "$NEX.LAMEDUCK." + id: nex.Unauthorized,
		} {
			a := e.run(t, subject+" with "+what, subject, body)
			if a.Code != code {
				t.Errorf("%s with %s: %s %q", subject, what, a.Code, a.Error)
			}
		}
		for verb, code := range map[string]nex.Code{"DEPLOY": nex.Unsupported, "STOP": nex.NotFound} {
			if what != "null" && what != "object" {
				code = nex.Invalid // it is no request at all
			}
			a := e.run(t, verb+" with "+what, "$NEX."+verb+".default."+id, body)
			if a.Code != code || code == nex.Invalid && !strings.HasPrefix(a.Error, "Unable to deserialize "+strings.ToLower(verb)+" request: ") {
				t.Errorf("%s with %s: %s %q", verb, what, a.Code, a.Error)
			}
		}
		for _, subject := range []string{"$NEX.WPING.nowhere", "$NEX.WPING.default.nothing", "$NEX.WPING.default.steady.more"} {
			e.send(t, subject+" with "+what, subject, body)
		}
	}
	r.works(t)
	e.finish(t)
}

// fieldsOf takes a request apart.
func fieldsOf(t *testing.T, body []byte) (fields map[string]json.RawMessage) {
	t.Helper()
	if err := json.Unmarshal(body, &fields); err != nil {
		t.Fatal(err)
	}
	return fields
}

// without makes a request of all fields but some.
func without(t *testing.T, body []byte, left ...string) []byte {
	t.Helper()
	fields := fieldsOf(t, body)
	maps.DeleteFunc(fields, func(field string, _ json.RawMessage) bool { return slices.Contains(left, field) })
	return encoded(t, fields, nil)
}

// TestDeployWithout leaves out each field of a deploy request. What a client
// of Nex 0.2.7 need not send, it need not; ours have signed all they send, and
// may leave out what is nothing.
func TestDeployWithout(t *testing.T) {
	required := map[string]nex.Code{
		"type": nex.Unsupported, "location": nex.Invalid, "workload_jwt": nex.Unauthorized,
		"environment": nex.Invalid, "sender_public_key": nex.Invalid, "trigger_subjects": nex.Invalid,
	}
	r := newRig(t, settings(t))
	deploys := nex.DeploySubject("default", r.node.NodeID)
	e := newErrands(r)
	w := r.upload(t, "echo", nex.V8, []byte(echo))
	w.TriggerSubjects = []string{"t.echo"}
	rich := w // has every field
	rich.Description, rich.Argv, rich.SourceName, rich.Settings.MaxConcurrency = "told", []string{"x"}, "echo.js", 3
	for name, m := range map[string]messages{"ours": ours, "of Nex 0.2.7": theirs} {
		for field := range fieldsOf(t, m.deploy(t, r, rich)) {
			body := m.deploy(t, r, rich)
			what := fmt.Sprintf("%s without %s", name, field)
			a := e.run(t, what, deploys, without(t, body, field))
			code := required[field]
			if zero := string(fieldsOf(t, body)[field]); name == "ours" && field != "type" && field != "workload_jwt" && zero != `""` && zero != "false" {
				code = nex.Unauthorized // the claims are for another request
			}
			r.wantDeploy(t, what, a, code)
		}
		body := without(t, m.deploy(t, r, w), "description", "essential", "jsdomain")
		r.wantDeploy(t, name+" with little", e.run(t, name+" with little", deploys, body), "")
	}
	least := without(t, theirs.deploy(t, r, w), "description", "essential", "jsdomain", "target_node", "argv", "source_name")
	r.wantDeploy(t, "the least", e.run(t, "the least", deploys, least), "")
	least = bytes.Replace(least, []byte(`"nats"`), []byte(`null`), 1)
	r.wantDeploy(t, "the least again", e.run(t, "the least again", deploys, least), nex.Unauthorized)
	r.works(t)
	e.finish(t)
}

// wantDeploy checks the answer to a deploy, and stops what runs.
func (r *rig) wantDeploy(t *testing.T, what string, a answer, code nex.Code) {
	t.Helper()
	if a.Code != code {
		t.Errorf("%s: %s %q, want %q", what, a.Code, a.Error, code)
	}
	if a.Error != "" {
		return
	}
	if m := r.call(t, "t.echo", []byte(what)); string(m.Data) != what {
		t.Errorf("%s: %q %v", what, m.Data, m.Header)
	}
	if err := r.stop(t, "echo", a.id(t)); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// TestStopWithout leaves out each field of a stop request.
func TestStopWithout(t *testing.T) {
	r := newRig(t, settings(t))
	stops := nex.StopSubject("default", r.node.NodeID)
	e := newErrands(r)
	for name, m := range map[string]messages{"ours": ours, "of Nex 0.2.7": theirs} {
		id := r.mustDeployJS(t, "echo", "t.echo", echo)
		for field, code := range map[string]nex.Code{"workload_id": nex.NotFound, "workload_jwt": nex.Unauthorized} {
			what := fmt.Sprintf("%s without %s", name, field)
			if a := e.run(t, what, stops, without(t, m.stop(t, r, "echo", id), field)); a.Code != code {
				t.Errorf("%s: %s %q", what, a.Code, a.Error)
			}
		}
		what := name + " without target_node"
		if a := e.run(t, what, stops, without(t, m.stop(t, r, "echo", id), "target_node")); a.Error != "" || a.id(t) != id {
			t.Errorf("%s: %s %q", what, a.Code, a.Error)
		}
	}
	r.works(t)
	e.finish(t)
}

// TestOverlongNames: a server of NATS ends the connection of whoever sends a
// line longer than 4,096 bytes, and what would make a node send one is refused.
func TestOverlongNames(t *testing.T) {
	r := newRig(t, settings(t))
	id := r.node.NodeID
	e := newErrands(r)
	w := r.upload(t, "echo", nex.V8, []byte(echo))
	w.TriggerSubjects = []string{"t.echo"}
	long := strings.Repeat("x", 5000)
	for field, value := range map[string]any{
		"trigger_subjects": []string{long}, "location": "nats://" + long + "/key", "jsdomain": long,
		"type": long, "description": make([]string, 1000),
	} {
		fields := fieldsOf(t, theirs.deploy(t, r, w))
		fields[field] = encoded(t, value, nil)
		if a := e.run(t, field, "$NEX.DEPLOY.default."+id, encoded(t, fields, nil)); a.Error == "" {
			t.Errorf("deployed with an overlong %s", field)
		}
	}
	fields := fieldsOf(t, theirs.deploy(t, r, w))
	fields["location"] = encoded(t, "nats://TEST/"+long, nil)
	e.run(t, "key", "$NEX.DEPLOY.default."+id, encoded(t, fields, nil)).wants(t, "key", nex.Invalid, "at most")
	e.run(t, "namespace", "$NEX.DEPLOY."+long[:256]+"."+id, theirs.deploy(t, r, w)).wants(t, "namespace", nex.Invalid, "cannot hold workloads")

	// The longest that is taken does no harm.
	widest := w
	widest.Name, widest.TriggerSubjects = long[:255], []string{long[:1024]}
	body := theirs.deploy(t, r, widest)
	a := e.run(t, "the longest", "$NEX.DEPLOY."+long[:255]+"."+id, body)
	if m := r.call(t, long[:1024], []byte("hi")); string(m.Data) != "hi" {
		t.Errorf("the longest: %q", m.Data)
	}
	stop := e.run(t, "the end of the longest", "$NEX.STOP."+long[:255]+"."+id, theirs.stop(t, r, widest.Name, a.id(t)))
	if stop.id(t) != a.id(t) {
		t.Errorf("stopped %s", stop.Data)
	}
	r.works(t)
	e.finish(t)
}

// TestManyTriggers: each is a subscription and two goroutines.
func TestManyTriggers(t *testing.T) {
	r := newRig(t, settings(t))
	w := r.upload(t, "echo", nex.V8, []byte(echo))
	for i := range 257 {
		w.TriggerSubjects = append(w.TriggerSubjects, fmt.Sprintf("t.%d", i))
	}
	_, err := r.deploy(t, w)
	wantRefused(t, "257 triggers", err, nex.Invalid, "at most 256 trigger subjects")
	w.TriggerSubjects = w.TriggerSubjects[1:]
	if _, err := r.deploy(t, w); err != nil {
		t.Error(err)
	}
}

// TestLargeAuction is one message that anybody may send. It must not keep the
// node busy for as many checks as it has types times subjects.
func TestLargeAuction(t *testing.T) {
	r := newRig(t, settings(t))
	body := encoded(t, nex.AuctionRequest{
		WorkloadTypes: slices.Repeat([]nex.WorkloadType{nex.V8, nex.Wasm, "oci"}, 20_000), TriggerSubjects: slices.Repeat([]string{"a"}, 100_000),
	}, nil)
	if err := r.nc.Publish(nex.AuctionSubject, body); err != nil {
		t.Fatal(err)
	}
	r.call(t, nex.AuctionSubject, nil)
}
