package node_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"nex"
	"nex/internal/nextest"
)

// serviceVariable makes this test binary a service of these tests.
const serviceVariable = "NODE_TEST_SERVICE"

// beService is a service that is well until somebody says otherwise on its
// subject: "ill", "well", or an exit status.
func beService() int {
	name := os.Getenv(serviceVariable)
	var ill atomic.Bool
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	nc, err := nats.Connect(os.Getenv("NATS_URL"))
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if _, err := micro.AddService(nc, micro.Config{Name: name, Version: "1.0.0"}); err != nil {
		fmt.Println(err)
		return 1
	}
	exit := make(chan int)
	_, err = nc.Subscribe(name, func(m *nats.Msg) {
		switch text := string(m.Data); text {
		case "":
			if !ill.Load() {
				_ = m.Respond(nil)
			}
		case "port":
			_ = m.Respond([]byte(strconv.Itoa(l.Addr().(*net.TCPAddr).Port)))
		case "ill", "well":
			ill.Store(text == "ill")
			_ = m.Respond(nil)
		default:
			code, _ := strconv.Atoi(text)
			exit <- code
		}
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if ill.Load() {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}))
	}()
	return <-exit
}

// service is a workload that runs beService.
func (r *rig) service(t *testing.T, name string, s nex.Settings) nex.Workload {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := r.upload(t, name, nex.Native, fmt.Appendf(nil, "#!/bin/sh\nexec '%s'\n", self))
	w.Environment = map[string]string{serviceVariable: name, "NATS_URL": r.nc.ConnectedUrl()}
	w.Settings = s
	return w
}

// machine is what info says of a workload.
func (r *rig) machine(t *testing.T, id string) nex.MachineSummary {
	t.Helper()
	info, err := r.Info(t.Context(), r.node.NodeID)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range info.Machines {
		if m.ID == id {
			return m
		}
	}
	t.Fatalf("workload %s is not there", id)
	panic("unreachable")
}

// next waits for the next event of a type.
func next[E nex.EventData](t *testing.T, r *rig) (data E) {
	t.Helper()
	if err := r.await(t, data).DataAs(&data); err != nil {
		t.Fatal(err)
	}
	return data
}

// health waits for the next event about it.
func (r *rig) health(t *testing.T) nex.WorkloadHealth {
	t.Helper()
	return next[nex.WorkloadHealth](t, r)
}

func TestServiceHealth(t *testing.T) {
	r := newRig(t, settings(t))
	port := func(name string) int {
		n, err := strconv.Atoi(string(r.call(t, name, []byte("port")).Data))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for name, ready := range map[string]func() nex.Ready{
		"by-subject": func() nex.Ready { return nex.Ready{Subject: "by-subject"} },
		"by-http": func() nex.Ready { // of a service that is there already
			if _, err := r.deploy(t, r.service(t, "other", nex.Settings{Ready: nex.Ready{Micro: "other"}})); err != nil {
				t.Fatal(err)
			}
			if e := r.health(t); !e.Healthy || e.Name != "other" {
				t.Errorf("by micro service: %+v", e)
			}
			return nex.Ready{TCPPort: port("other"), HTTPPath: "/live"}
		},
	} {
		s := nex.Settings{Ready: ready()}
		s.Ready.EveryMS, s.Ready.TimeoutMS = 100, 300
		reply, err := r.deploy(t, r.service(t, name, s))
		if err != nil {
			t.Fatal(err)
		}
		if e := r.health(t); !e.Healthy || e.Name != name {
			t.Errorf("%s: %+v", name, e)
		}
		m := r.machine(t, reply.ID)
		if !m.Healthy {
			t.Errorf("%s: %+v", name, m)
		}
		if u := m.Usage; u == nil || u.MemoryBytes < 1<<20 || u.PIDs < 1 {
			t.Errorf("%s uses %+v", name, u)
		}
		target := name
		if s.Ready.TCPPort > 0 {
			target = "other"
		}
		r.call(t, target, []byte("ill"))
		if e := r.health(t); e.Healthy || e.Reason == "" {
			t.Errorf("%s, ill: %+v", name, e)
		}
		if m := r.machine(t, reply.ID); m.Healthy || m.Unhealthy == "" {
			t.Errorf("%s, ill: %+v", name, m)
		}
		r.call(t, target, []byte("well"))
		if e := r.health(t); !e.Healthy {
			t.Errorf("%s, well again: %+v", name, e)
		}
	}
}

// TestServiceRestarts: the same id over all restarts, each told, until there
// have been as many as there may be.
func TestServiceRestarts(t *testing.T) {
	r := newRig(t, settings(t))
	w := r.service(t, "svc", nex.Settings{Restart: nex.Restart{Policy: nex.RestartAlways, MaxAttempts: 2}, Ready: nex.Ready{Subject: "svc"}})
	reply, err := r.deploy(t, w)
	if err != nil {
		t.Fatal(err)
	}
	for attempt, code := range []string{"0", "3"} {
		r.health(t)
		if err := r.nc.Publish("svc", []byte(code)); err != nil {
			t.Fatal(err)
		}
		if e := next[nex.WorkloadRestarting](t, r); e.Attempt != attempt+1 || !strings.Contains(e.Reason, code) {
			t.Errorf("restarting %+v", e)
		}
		m := r.machine(t, reply.ID)
		if m.Restarts != attempt+1 || m.LastExit == nil || strconv.Itoa(m.LastExit.Code) != code || time.Since(m.LastExit.At) > nextest.Patience {
			t.Errorf("info %+v, last exit %+v", m, m.LastExit)
		}
	}
	r.health(t)
	if err := r.nc.Publish("svc", []byte("4")); err != nil {
		t.Fatal(err)
	}
	if e := next[nex.WorkloadUndeployed](t, r); e.Code != 4 || !strings.Contains(e.Message, "given up after 2 restarts in a row") {
		t.Errorf("undeployed %+v", e)
	}
}

// TestLameDuckEndsRestarts: a service that ends then stays ended.
func TestLameDuckEndsRestarts(t *testing.T) {
	r := newRig(t, settings(t))
	w := r.service(t, "svc", nex.Settings{Restart: nex.Restart{Policy: nex.RestartAlways}, Ready: nex.Ready{Subject: "svc"}})
	if _, err := r.deploy(t, w); err != nil {
		t.Fatal(err)
	}
	r.health(t)
	if _, err := r.LameDuck(t.Context(), r.node.NodeID, nex.LameDuckRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := r.nc.Publish("svc", []byte("1")); err != nil {
		t.Fatal(err)
	}
	r.await(t, nex.WorkloadUndeployed{})
}
