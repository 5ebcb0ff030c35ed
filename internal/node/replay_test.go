package node_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/nextest"
	"nex/internal/node"
	"nex/internal/rawclient"
)

// messages makes the bytes of requests as one kind of client sends them.
type messages struct {
	deploy func(t *testing.T, r *rig, w nex.Workload) []byte
	stop   func(t *testing.T, r *rig, name, id string) []byte
}

var ours = messages{
	deploy: func(t *testing.T, r *rig, w nex.Workload) []byte {
		req, err := r.keys.Deploy(w, r.target())
		return encoded(t, req, err)
	},
	stop: func(t *testing.T, r *rig, name, id string) []byte {
		req, err := r.keys.Stop(name, id, r.target())
		return encoded(t, req, err)
	},
}

// theirs are messages of Nex 0.2.7.
var theirs = messages{
	deploy: func(t *testing.T, r *rig, w nex.Workload) []byte {
		req, err := r.keys.Deploy(w, r.target())
		if err == nil {
			req.WorkloadJWT, err = rawclient.Sign(r.keys.Issuer, rawclient.Claims{
				IssuedAt: time.Now().Unix(), Subject: w.Name, Data: rawclient.Data{Hash: "abc12345TODOmakethisreal"},
			})
		}
		return encoded(t, req, err)
	},
	stop: func(t *testing.T, r *rig, name, id string) []byte {
		token, err := rawclient.Sign(r.keys.Issuer, rawclient.Claims{IssuedAt: time.Now().Add(time.Second).Unix(), Subject: name})
		return encoded(t, nex.StopRequest{WorkloadID: id, WorkloadJWT: token, TargetNode: r.node.NodeID}, err)
	},
}

func encoded(t *testing.T, request any, err error) []byte {
	t.Helper()
	body, jerr := json.Marshal(request)
	if err != nil || jerr != nil {
		t.Fatal(err, jerr)
	}
	return body
}

// answer is what a node said, of a deploy or a stop.
type answer struct {
	Data  json.RawMessage
	Error string
	Code  nex.Code
}

func (a answer) id(t *testing.T) string {
	t.Helper()
	var d nex.DeployReply
	if a.Error != "" || json.Unmarshal(a.Data, &d) != nil || d.ID == "" {
		t.Fatalf("%s, %s %q", a.Data, a.Code, a.Error)
	}
	return d.ID
}

func (a answer) wants(t *testing.T, what string, code nex.Code, text string) {
	t.Helper()
	if a.Code != code || !strings.Contains(a.Error, text) {
		t.Errorf("%s: %s, %s %q; want %s: %q", what, a.Data, a.Code, a.Error, code, text)
	}
}

func answerOf(t *testing.T, m *nats.Msg) (a answer) {
	t.Helper()
	if err := json.Unmarshal(m.Data, &a); err != nil {
		t.Fatalf("%q: %v", m.Data, err)
	}
	return a
}

// tell sends a message as it is.
func (r *rig) tell(t *testing.T, subject string, body []byte) answer {
	t.Helper()
	return answerOf(t, r.call(t, subject, body))
}

// tellAll sends messages so that the node has all of them at once.
func (r *rig) tellAll(t *testing.T, subject string, bodies ...[]byte) []answer {
	t.Helper()
	inbox := r.nc.NewInbox()
	replies := make(chan *nats.Msg, 2*len(bodies))
	sub, err := r.nc.ChanSubscribe(inbox, replies)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	for _, body := range bodies {
		if err := r.nc.PublishRequest(subject, inbox, body); err != nil {
			t.Fatal(err)
		}
	}
	answers := make([]answer, len(bodies))
	for i := range answers {
		answers[i] = answerOf(t, nextest.Await(t, replies, "an answer"))
	}
	r.call(t, nex.NodePingSubject(r.node.NodeID), nil)
	if len(replies) > 0 {
		t.Errorf("more than %d answers", len(bodies))
	}
	return answers
}

const takenBefore = "this request was taken before: send a newly signed one"

// TestCapturedRequests sends again byte for byte, and with the few changes
// that leave a signature intact, what a node has taken: at once, while it
// works on it, after it was started again, and after the time for which it
// remembers what has no expiry.
func TestCapturedRequests(t *testing.T) {
	for name, m := range map[string]messages{"ours": ours, "of Nex 0.2.7": theirs} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &rig{dir: t.TempDir()}
			var later atomic.Int64
			srv, s := nextest.Server(t), settings(t)
			s.PoolSize = 0
			start := func() {
				r.node, r.end = runConfig(t, node.Config{
					Settings: s, Version: "test", StateDir: r.dir, Server: srv.ClientURL(), Log: slog.New(slog.DiscardHandler),
					Now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) },
				})
			}
			start()
			r.with(t, srv)
			w := r.upload(t, "busy", nex.V8, []byte(`(s, p) => { while (p.length) {} return "" }`))
			w.TriggerSubjects, w.Settings.FunctionTimeoutMS = []string{"t.busy"}, 1000
			deploys, stops := nex.DeploySubject("default", r.node.NodeID), nex.StopSubject("default", r.node.NodeID)

			deploy := m.deploy(t, r, w)
			id := r.tell(t, deploys, deploy).id(t)
			r.tell(t, deploys, deploy).wants(t, "deploy again", nex.Unauthorized, takenBefore)
			for _, forged := range rewritten(t, deploy) {
				r.tell(t, deploys, forged).wants(t, "deploy with another text of the signature", nex.Unauthorized, "could not decode workload JWT")
			}
			r.tell(t, stops, encoded(t, nex.StopRequest{WorkloadID: id, WorkloadJWT: tokenOf(t, deploy)}, nil)).
				wants(t, "the deploy's claims for a stop", nex.Unauthorized, "cloned or captured")

			// A call holds the stop up, and meanwhile the same stop comes again.
			if err := r.nc.Publish("t.busy", []byte("x")); err != nil {
				t.Fatal(err)
			}
			stop := m.stop(t, r, "busy", id)
			twice := r.tellAll(t, stops, stop, stop)
			slices.SortFunc(twice, func(a, b answer) int { return strings.Compare(a.Error, b.Error) })
			twice[0].wants(t, "stop", "", "")
			twice[1].wants(t, "stop again", nex.Unauthorized, takenBefore)
			r.tell(t, stops, stop).wants(t, "stop when it is gone", nex.NotFound, "No such workload")
			r.tell(t, deploys, deploy).wants(t, "deploy when it is gone", nex.Unauthorized, takenBefore)

			r.end()
			start()
			r.tell(t, deploys, deploy).wants(t, "deploy after a restart", nex.Unauthorized, takenBefore)
			r.tell(t, stops, stop).wants(t, "stop after a restart", nex.NotFound, "No such workload")
			later.Store(int64(s.ReplayWindow + 2*time.Second))
			late := r.tell(t, deploys, deploy)
			if name == "ours" {
				late.wants(t, "deploy after a minute", nex.Unauthorized, takenBefore)
				later.Store(int64(nex.ClaimsLife + time.Minute))
				r.tell(t, deploys, deploy).wants(t, "deploy when it expired", nex.Unauthorized, "standard claims within JWT are not valid")
			} else { // for Nex 0.2.7 claims are good for ever
				late.id(t)
				r.tell(t, deploys, deploy).wants(t, "and once more", nex.Unauthorized, takenBefore)
			}
		})
	}
}

func tokenOf(t *testing.T, deploy []byte) string {
	t.Helper()
	var req nex.DeployRequest
	if err := json.Unmarshal(deploy, &req); err != nil {
		t.Fatal(err)
	}
	return req.WorkloadJWT
}

// rewritten are requests with the same claims, whose signature is written as
// base64 allows it.
func rewritten(t *testing.T, deploy []byte) (forged [][]byte) {
	t.Helper()
	token := tokenOf(t, deploy)
	last := token[len(token)-1]
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	spare := alphabet[strings.IndexByte(alphabet, last)^1]
	for _, other := range []string{token[:len(token)-1] + string(spare), token + `\n`, token[:len(token)-9] + `\r` + token[len(token)-9:]} {
		forged = append(forged, []byte(strings.Replace(string(deploy), token, other, 1)))
	}
	return forged
}

// TestOneRequestIsOneWorkload sends one request fifty times at once.
func TestOneRequestIsOneWorkload(t *testing.T) {
	r := newRig(t, settings(t))
	w := r.upload(t, "echo", nex.V8, []byte(echo))
	w.TriggerSubjects = []string{"t.echo"}
	for name, m := range map[string]messages{"ours": ours, "of Nex 0.2.7": theirs} {
		body := m.deploy(t, r, w)
		ids := []string{}
		for _, a := range r.tellAll(t, nex.DeploySubject("default", r.node.NodeID), slices.Repeat([][]byte{body}, 50)...) {
			if a.Error == "" {
				ids = append(ids, a.id(t))
				continue
			}
			a.wants(t, name, nex.Unauthorized, takenBefore)
		}
		if got := r.running(t); len(ids) != 1 || !slices.Equal(got, ids) {
			t.Fatalf("%s: one request made %v, of which run %v", name, ids, got)
		}
		if err := r.stop(t, "echo", ids[0]); err != nil {
			t.Fatal(err)
		}
	}
}

// running are the ids of all workloads in the client's namespace.
func (r *rig) running(t *testing.T) (ids []string) {
	t.Helper()
	info, err := r.Info(t.Context(), r.node.NodeID)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range info.Machines {
		ids = append(ids, m.ID)
	}
	slices.Sort(ids)
	return ids
}

// TestDeploysAtOnce has more workloads begin at once than machines are ready.
func TestDeploysAtOnce(t *testing.T) {
	s := settings(t)
	s.PoolSize = 4
	r := newRig(t, s)
	const many = 10
	work := make([]nex.Workload, many)
	for i := range work {
		name := fmt.Sprintf("w%d", i)
		if i%2 == 0 {
			work[i] = r.upload(t, name, nex.Native, []byte("#!/bin/sh\nexec sleep 1000\n"))
			continue
		}
		work[i] = r.upload(t, name, nex.V8, []byte(echo))
		work[i].TriggerSubjects = []string{"t." + name}
	}
	ids := make([]string, many)
	var all sync.WaitGroup
	for i, w := range work {
		all.Go(func() {
			reply, err := r.deploy(t, w)
			if err != nil || reply.Name != w.Name {
				t.Errorf("%s: %+v, %v", w.Name, reply, err)
			}
			ids[i] = reply.ID
		})
	}
	all.Wait()
	if got := r.running(t); !slices.Equal(got, slices.Sorted(slices.Values(ids))) || len(slices.Compact(got)) != many {
		t.Fatalf("deployed %v, and info says %v", ids, got)
	}
	for i, w := range work {
		all.Go(func() {
			if err := r.stop(t, w.Name, ids[i]); err != nil {
				t.Errorf("%s: %v", w.Name, err)
			}
		})
	}
	all.Wait()
	if got := r.running(t); len(got) > 0 {
		t.Errorf("all are stopped, and info says %v", got)
	}
	r.end()
	told := map[string]int{} // by event and workload
	for last := (nex.NodeStopped{}).EventType(); told[last] == 0; {
		e := nextest.Await(t, r.events, "an event")
		told[e.Type()]++
		told[e.Type()+" "+e.Source()]++
	}
	for _, id := range ids {
		for _, event := range []nex.EventData{nex.WorkloadDeployed{}, nex.WorkloadUndeployed{}} {
			if n := told[event.EventType()+" "+r.node.NodeID+"-"+id]; n != 1 {
				t.Errorf("%d events %s of %s", n, event.EventType(), id)
			}
		}
	}
}

// with gives a rig that has a node already a client of it.
func (r *rig) with(t *testing.T, srv *server.Server) {
	t.Helper()
	r.nc = nextest.Connect(t, srv)
	var err error
	if r.Client, err = nex.NewClient(r.nc, ""); err != nil {
		t.Fatal(err)
	}
	r.keys.Issuer, _ = nkeys.CreateAccount()
	r.keys.Sender, _ = nkeys.CreateCurveKeys()
}
