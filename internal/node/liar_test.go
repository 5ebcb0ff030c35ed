package node_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"nex"
	"nex/internal/nextest"
	"nex/internal/node"
)

// heard keeps what a node logs.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *heard) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(b)
}

func (h *heard) says(text string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Contains(h.text.String(), text)
}

// TestLyingAgents: who is called on a machine whose agent lies is told by a typed
// error, the machine is lost, which the log and an event say, the function comes back
// under its id, and the functions of another namespace hear nothing of it.
func TestLyingAgents(t *testing.T) {
	s := lean(t)
	s.Defaults.FunctionTimeoutMS = 1000
	var log heard
	srv := nextest.Server(t)
	r := newClientRig(t, srv)
	r.node, r.end = runConfig(t, node.Config{
		Settings: s, Version: "test", StateDir: r.dir, Server: srv.ClientURL(), Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	other := *r
	other.Client = must(nex.NewClient(r.nc, "other"))(t)
	other.mustDeployJS(t, "neighbour", "neighbour", echo)
	for lie, cause := range map[string]string{
		"answer to another call":      "malformed frame",
		"answer that is no result":    "malformed message",
		"endless beginnings of calls": "one long message too many",
		"endless logs of nobody":      "workloads that it does not have",
		"no answer":                   "it does not answer",
		"endless logs":                "it does not answer",
		"exit of what does not exit":  "a function does not exit",
		"end in the middle":           "unexpected EOF",
	} {
		t.Run(lie, func(t *testing.T) {
			if err := nextest.LieNext(s.AgentPath, lie); err != nil {
				t.Fatal(err)
			}
			id := r.mustDeployJS(t, "lies", "lies", echo)
			m := r.call(t, "lies", []byte("x"))
			if code := m.Header.Get("Nats-Service-Error-Code"); code != "503" && code != "504" {
				t.Errorf("the call is answered %q %v", m.Data, m.Header)
			}
			if e := r.await(t, nex.WorkloadRestarting{}); !strings.HasSuffix(e.Source(), id) {
				t.Errorf("%s restarts, want %s", e.Source(), id)
			}
			r.await(t, nex.WorkloadDeployed{})
			if m := r.call(t, "lies", []byte("again")); string(m.Data) != "again" {
				t.Errorf("after recovery: %q %v", m.Data, m.Header)
			}
			if m := r.call(t, "neighbour", []byte("here")); string(m.Data) != "here" {
				t.Errorf("the neighbour answers %q %v", m.Data, m.Header)
			}
			if !log.says(cause) {
				t.Errorf("the log does not say %q", cause)
			}
			if err := r.stop(t, "lies", id); err != nil {
				t.Fatal(err)
			}
		})
	}
}
