package control

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"nex"
)

// taker is a Backend and a Directory that says what it was asked.
type taker struct{ namespace, idOrName string }

func (b *taker) Deploy(_ context.Context, ns string, r nex.DeployRequest) (nex.DeployReply, error) {
	b.namespace = ns
	return nex.DeployReply{Started: true, Name: r.Description}, nil
}

func (b *taker) Stop(_ context.Context, ns string, r nex.StopRequest) (nex.StopReply, error) {
	b.namespace = ns
	return nex.StopReply{}, nex.Errorf(nex.NotFound, "no workload %s", r.WorkloadID)
}

func (b *taker) Info(_ context.Context, ns string) (nex.InfoReply, error) {
	b.namespace = ns
	return nex.InfoReply{}, nil
}

func (b *taker) LameDuck(_ context.Context, r nex.LameDuckRequest) (nex.LameDuckReply, error) {
	return nex.LameDuckReply{}, nex.Errorf(nex.Unauthorized, "no administrator signed %s", r.AdminJWT)
}

func (b *taker) Ping() nex.NodeInfo { return nex.NodeInfo{} }

func (b *taker) Auction(r nex.AuctionRequest) (nex.Bid, bool) {
	return nex.Bid{Refusals: r.TriggerSubjects}, r.Explain || r.Arch == ""
}

func (b *taker) Workloads(ns, idOrName string) (nex.NodeWorkloads, bool) {
	b.namespace, b.idOrName = ns, idOrName
	return nex.NodeWorkloads{}, ns != "silent"
}

// hears returns the routes of a server that has no connection.
func hears(b *taker) (*Server, []route) {
	s := &Server{cfg: Config{Backend: b, Directory: b, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}}
	return s, s.routes("N1")
}

// FuzzRequests puts any body on every control subject. What comes back is
// silence where that is allowed, or one envelope: a refusal has a known code
// that is no panic's, and a text that is not longer than a page.
func FuzzRequests(f *testing.F) {
	for _, name := range []string{"ping_wping", "auction", "info_lameduck", "deploy", "stop"} {
		data, err := os.ReadFile("../../testdata/wire/control_" + name + ".json")
		if err != nil {
			f.Fatal(err)
		}
		var cases []struct{ Request json.RawMessage }
		if err := json.Unmarshal(data, &cases); err != nil {
			f.Fatal(err)
		}
		for _, c := range cases {
			f.Add([]byte(c.Request))
		}
	}
	for _, s := range []string{"", "null", "{}", "[]", `""`, "1", `{"location":"nats://[` + strings.Repeat("x", 5000) + `"}`, `{"description":"\ud800"}`} {
		f.Add([]byte(s))
	}
	s, routes := hears(&taker{})
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, r := range routes {
			subject := strings.NewReplacer("*", "ns", ">", "ns").Replace(r.subject)
			data, err := s.guarded(t.Context(), r, &nats.Msg{Subject: subject, Data: body})
			if data == nil && err == nil {
				if r.replyType != nex.AuctionReplyType {
					t.Errorf("%s: silence", subject)
				}
				continue
			}
			reply, merr := envelope(r.replyType, data, err)
			var e nex.Envelope
			if merr != nil || json.Unmarshal(reply, &e) != nil || e.Type != r.replyType || len(e.Data) == 0 {
				t.Fatalf("%s: %s, %v", subject, reply, merr)
			}
			if err != nil && (!e.Code.Known() || e.Code == nex.Internal || e.Error == "" || len(e.Error) > maxText+100 || string(e.Data) != `""`) {
				t.Errorf("%s with %q: %s", subject, body, reply)
			}
		}
	})
}

// FuzzSubjects takes a message from any subject that a route hears: what the
// node is asked about is what stands in the subject.
func FuzzSubjects(f *testing.F) {
	for _, s := range []string{"$NEX.WPING.ns", "$NEX.WPING.ns.w1", "$NEX.WPING.a.b.c", "$NEX.WPING.$NEX.WPING.x", "$NEX.INFO.ns.N1", "$NEX.WPING.\xff", "$NEX.STOP.%s.N1"} {
		f.Add(s)
	}
	b := &taker{}
	s, routes := hears(b)
	f.Fuzz(func(t *testing.T, subject string) {
		tokens := strings.Split(subject, ".")
		for _, r := range routes {
			if !hear(strings.Split(r.subject, "."), tokens) {
				continue
			}
			*b = taker{}
			data, err := s.guarded(t.Context(), r, &nats.Msg{Subject: subject, Data: []byte("{}")})
			if nex.CodeOf(err) == nex.Internal {
				t.Errorf("%q: %v", subject, err)
			}
			switch verb := tokens[1]; verb {
			case "WPING":
				want := taker{namespace: tokens[2]}
				if len(tokens) == 4 {
					want.idOrName = tokens[3]
				}
				if len(tokens) > 4 {
					want = taker{}
				}
				if *b != want || (data != nil) != (want != (taker{}) && want.namespace != "silent") {
					t.Errorf("%q: asked for %+v, answered %v", subject, *b, data)
				}
			case "INFO", "DEPLOY", "STOP":
				if b.namespace != tokens[2] {
					t.Errorf("%q: asked for namespace %q", subject, b.namespace)
				}
			}
		}
	})
}

// hear reports whether a subscription gets what is published, none of whose
// tokens is empty.
func hear(pattern, subject []string) bool {
	for i, p := range pattern {
		if i >= len(subject) || subject[i] == "" {
			return false
		}
		if p == ">" {
			return true
		}
		if p != "*" && p != subject[i] {
			return false
		}
	}
	return len(pattern) == len(subject)
}
