package hostsvc

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"nex"
	"nex/internal/nextest"
)

func TestAnswers(t *testing.T) {
	r := newRig(t, Config{Messaging: Messaging{Deny: []string{"secret.>"}}})
	s := r.open(t, "n", "w")
	r.answer(t, "well", func(m *nats.Msg) { _ = m.Respond(nil) })
	r.answer(t, "ill", func(m *nats.Msg) {
		_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"Nats-Service-Error": {"out of paper"}}})
	})
	r.answer(t, "silent", func(*nats.Msg) {})
	r.answer(t, "secret.a", func(m *nats.Msg) { t.Error("it was asked") })
	svc, err := micro.AddService(r.nc, micro.Config{Name: "Echo-1", Version: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ready nex.Ready
		code  nex.Code
		words string
	}{
		"well":            {nex.Ready{Subject: "well"}, "", ""},
		"ill":             {nex.Ready{Subject: "ill"}, nex.Unavailable, "ill answers: out of paper"},
		"nobody":          {nex.Ready{Subject: "nobody"}, nex.Unavailable, "nobody answers"},
		"silent":          {nex.Ready{Subject: "silent", TimeoutMS: 100}, nex.Timeout, "no answer in time"},
		"denied":          {nex.Ready{Subject: "secret.a"}, nex.Denied, "does not let"},
		"always denied":   {nex.Ready{Subject: "$JS.API.INFO"}, nex.Denied, "not for workloads"},
		"micro":           {nex.Ready{Micro: "Echo-1"}, "", ""},
		"micro, by name":  {nex.Ready{Micro: "Echo-2"}, nex.Unavailable, "nobody answers"},
		"micro, not dots": {nex.Ready{Micro: "a.b"}, nex.Unavailable, "nobody answers"},
	} {
		err := s.Answers(t.Context(), c.ready)
		if nex.CodeOf(err) != c.code || err != nil && !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v, want %s %q", name, err, c.code, c.words)
		}
	}
	if err := svc.Stop(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(nextest.Patience); s.Answers(t.Context(), nex.Ready{Micro: "Echo-1"}) == nil; {
		if time.Now().After(deadline) { // its subscriptions end a little later than it does
			t.Fatal("a micro service that has ended answers")
		}
	}
	s.Close()
	if err := s.Answers(t.Context(), nex.Ready{Subject: "well"}); err == nil {
		t.Error("a closed session asks")
	}
	if n := s.Refused(); n != 0 {
		t.Errorf("%d calls of the workload were refused", n)
	}
}
