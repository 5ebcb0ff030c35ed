package workload_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/artifact"
	"nex/internal/guest"
	"nex/internal/nextest"
	"nex/internal/workload"
)

func TestMain(m *testing.M) { nextest.Main(m) }

// host is a Guests whose guests a test scripts.
type host struct {
	mu     sync.Mutex
	guests []*fakeGuest
	fail   error                                            // of Take
	deploy func(*fakeGuest, guest.Deploy, guest.Sink) error // nil: accept
	probe  func(guest.Probe) error
	invoke func(context.Context, guest.Trigger) (guest.Result, error) // nil: echo
}

func (h *host) Take(context.Context) (workload.Guest, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		return nil, h.fail
	}
	g := &fakeGuest{host: h, gone: make(chan struct{}), running: map[string]guest.Sink{}}
	h.guests = append(h.guests, g)
	return g, nil
}

func (h *host) taken() []*fakeGuest {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.guests)
}

func (h *host) failTaking(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = err
}

type fakeGuest struct {
	host *host
	gone chan struct{}
	once sync.Once

	mu      sync.Mutex
	running map[string]guest.Sink
}

func (g *fakeGuest) Deploy(_ context.Context, d guest.Deploy, artifact io.Reader, sink guest.Sink) error {
	if _, err := io.Copy(io.Discard, artifact); err != nil {
		return err
	}
	if g.host.deploy != nil {
		if err := g.host.deploy(g, d, sink); err != nil {
			return err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running[d.ID] = sink
	return nil
}

func (g *fakeGuest) Invoke(t guest.Trigger, due time.Time, _ bool, done func(guest.Result, error)) {
	go func() {
		ctx, cancel := context.WithDeadline(context.Background(), due)
		defer cancel()
		done(g.invoke(ctx, t))
	}()
}

func (g *fakeGuest) invoke(ctx context.Context, t guest.Trigger) (guest.Result, error) {
	select {
	case <-g.gone:
		return guest.Result{}, guest.ErrNotSent
	default:
	}
	g.mu.Lock()
	_, ok := g.running[t.ID]
	g.mu.Unlock()
	if !ok {
		return guest.Result{}, errors.New("not deployed on this guest")
	}
	if g.host.invoke == nil {
		return guest.Result{Payload: t.Payload, Elapsed: time.Millisecond}, nil
	}
	return g.host.invoke(ctx, t)
}

func (g *fakeGuest) Undeploy(_ context.Context, id string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.running, id)
	return nil
}

func (g *fakeGuest) Probe(_ context.Context, p guest.Probe) error { return g.host.probe(p) }

func (g *fakeGuest) Usage() (nex.Usage, error) {
	return nex.Usage{CPUMS: 1, MemoryBytes: 2, PIDs: 3}, nil
}

func (g *fakeGuest) Done() <-chan struct{} { return g.gone }
func (g *fakeGuest) Release()              { g.once.Do(func() { close(g.gone) }) }

// exit plays the end of a service.
func (g *fakeGuest) exit(id string, e guest.Exit) {
	g.mu.Lock()
	sink := g.running[id]
	delete(g.running, id)
	g.mu.Unlock()
	sink.Exited(e)
}

// disk is an Artifacts holding one file.
type disk struct {
	artifact.Artifact
	fails *atomic.Int64 // how often it fails before it does not
	found *atomic.Bool  // it is there already
}

func (d disk) Fetch(_ context.Context, _ artifact.Ref, allow func(int64) error) (artifact.Artifact, error) {
	if d.fails.Add(-1) >= 0 {
		return artifact.Artifact{}, nex.Errorf(nex.Unavailable, "no answer")
	}
	return d.Artifact, allow(d.Size)
}

func (d disk) Find(sha256 string) (artifact.Artifact, bool) {
	return d.Artifact, d.found.Load() && sha256 == d.SHA256
}

// recorder is a Reporter that lets tests wait for what it hears.
type recorder struct {
	events chan nex.EventData
	calls  chan workload.Call
	logs   atomic.Int64
}

func (r *recorder) Event(_, _ string, e nex.EventData) { r.events <- e }
func (r *recorder) Called(c workload.Call) {
	select {
	case r.calls <- c:
	default: // a test that makes so many does not look at them
	}
}
func (r *recorder) Log(nex.LogSubject, slog.Level, string) { r.logs.Add(1) }

// bench is a manager and everything around it.
type bench struct {
	*workload.Manager
	host    *host
	fails   atomic.Int64 // of fetches, to come
	found   atomic.Bool  // the artifact is in the cache
	hosts   *hosts
	journal *journal
	server  *server.Server
	report  *recorder
	nc      *nats.Conn // of the caller
}

// hosts opens host services that answer with who asks.
type hosts struct {
	opened, closed atomic.Int64
	answers        func(nex.Ready) error
}

// services are those of one workload.
type services struct {
	hosts *hosts
	id    string
	spec  workload.Spec
}

func (h *hosts) open(id string, s workload.Spec) workload.Host {
	h.opened.Add(1)
	return services{h, id, s}
}

func (s services) Serve(_ context.Context, c guest.HostCall) (guest.Message, error) {
	return guest.Message{Payload: []byte(s.spec.Namespace + "/" + s.spec.Name + "/" + s.id + " " + c.Service)}, nil
}

// Answers is what a test scripts.
func (s services) Answers(ctx context.Context, r nex.Ready) error { return s.hosts.answers(r) }

func (s services) Refused() int64 { return 7 }
func (s services) Close()         { s.hosts.closed.Add(1) }

// journal counts what it is told.
type journal struct {
	mu              sync.Mutex
	restarts, ended map[string]int
	ending          func(id string) // nil for nobody
}

func (j *journal) Restarted(id string, n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.restarts[id] = n
}

func (j *journal) Ended(id string) {
	if j.ending != nil {
		j.ending(id)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ended[id]++
}

func (j *journal) told(id string) (restarts, ended int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.restarts[id], j.ended[id]
}

func newBench(t *testing.T, limits workload.Limits) *bench {
	t.Helper()
	return newBenchOn(t, nextest.Server(t), limits)
}

func newBenchOn(t *testing.T, s *server.Server, limits workload.Limits) *bench {
	t.Helper()
	path := filepath.Join(t.TempDir(), "artifact")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &bench{server: s, host: &host{}, hosts: &hosts{}, journal: &journal{restarts: map[string]int{}, ended: map[string]int{}}, report: &recorder{events: make(chan nex.EventData, 4000), calls: make(chan workload.Call, 10000)}, nc: nextest.Connect(t, s)}
	b.Manager = workload.NewManager(workload.Config{
		Guests: b.host, Artifacts: disk{Artifact: artifact.Artifact{Path: path, SHA256: "d1", Size: 7}, fails: &b.fails, found: &b.found},
		Conn: nextest.Connect(t, s), Reporter: b.report, Log: slog.New(slog.DiscardHandler), NodeID: "NODE", Limits: limits,
		Host: b.hosts.open, Journal: b.journal,
	})
	t.Cleanup(func() {
		b.Close(nextest.Patience, func() {})
		for _, g := range b.host.taken() {
			select {
			case <-g.gone:
			default:
				t.Error("a guest was not released")
			}
		}
		if opened, closed := b.hosts.opened.Load(), b.hosts.closed.Load(); opened != closed {
			t.Errorf("host services were opened %d times and closed %d times", opened, closed)
		}
	})
	return b
}

// heard reports whether anybody hears messages on a subject.
func (b *bench) heard(subject string) bool { return b.server.GlobalAccount().Interest(subject) > 0 }

func function(name string, triggers ...string) workload.Spec {
	return workload.Spec{Namespace: "default", Name: name, Type: nex.V8, Triggers: triggers, Settings: nex.Settings{FunctionTimeoutMS: 5000}}
}

func service(name string, essential bool) workload.Spec {
	settings := nex.Settings{FunctionTimeoutMS: 1000, StopGraceMS: 10_000, Restart: nex.Restart{Policy: nex.RestartNever, ResetMS: 10_000}}
	if essential {
		settings.Restart.Policy = nex.RestartOnFailure
	}
	return workload.Spec{Namespace: "default", Name: name, Type: nex.Native, Settings: settings}
}

// deploy runs a workload that must come up.
func (b *bench) deploy(t *testing.T, s workload.Spec) string {
	t.Helper()
	id, err := b.tryDeploy(t, s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (b *bench) tryDeploy(t *testing.T, s workload.Spec) (string, error) {
	t.Helper()
	slot, err := b.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	return b.Manager.Deploy(t.Context(), slot, s)
}

// event waits for the next event and checks its type.
func (b *bench) event(t *testing.T, want nex.EventData) nex.EventData {
	t.Helper()
	e := nextest.Await(t, b.report.events, want.EventType())
	if e.EventType() != want.EventType() {
		t.Fatalf("event %+v, want %s", e, want.EventType())
	}
	return e
}

func (b *bench) request(t *testing.T, subject, payload string) (*nats.Msg, error) {
	t.Helper()
	return b.nc.Request(subject, []byte(payload), nextest.Patience)
}
