package node_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/nextest"
	"nex/internal/node"
)

// TestHammer shoots 100,000 messages of all kinds at a node from several
// connections, while clients deploy, call and stop. The node answers what is
// to be answered once, does what it is asked in good order, and nothing of the
// rest is left. NEX_TEST_SEED repeats a run as far as one can be repeated.
func TestHammer(t *testing.T) {
	shots := 100_000
	if testing.Short() {
		shots = 10_000
	}
	h := newHammer(t)
	before := measured()
	gunners := make([]*gunner, 4)
	var hostile, good sync.WaitGroup
	var over atomic.Bool
	for i := range gunners {
		gunners[i] = h.gunner(t, uint64(i))
		hostile.Go(func() { gunners[i].shoot(shots / len(gunners)) })
	}
	left := make([][]string, 3)
	for i := range left {
		good.Go(func() { left[i] = h.client(t, i, &over) })
	}
	hostile.Wait()
	over.Store(true)
	good.Wait()

	want := append(slices.Concat(left...), h.steady)
	slices.Sort(want)
	if got := h.running(t); !slices.Equal(got, want) {
		t.Errorf("there run %v, want %v", got, want)
	}
	if n, err := h.Ping(t.Context(), h.node.NodeID); err != nil || n.RunningMachines != len(want) || n.LameDuck() {
		t.Errorf("%+v, %v; want %d workloads", n, err, len(want))
	}
	if now := agents(t, h.dir); !slices.Contains(now, h.agent) || h.restarts.Load() > 0 {
		t.Errorf("%d workloads were started again; agents %v, want %d among them", h.restarts.Load(), now, h.agent)
	}
	for i, ids := range left {
		for _, id := range ids {
			if err := h.stop(t, clientName(i), id); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	}
	h.works(t)
	for _, g := range gunners {
		g.check()
		g.nc.Close()
	}
	h.bounded(t, before)
}

// shot is one message, and what must come of it.
type shot struct {
	subject string
	body    []byte
	header  nats.Header
	mute    bool // it has no reply subject
	answers bounds
	nobody  bool // no node listens there: the NATS server says so
}

// bounds are the fewest and the most answers.
type bounds struct{ least, most int32 }

var (
	once    = bounds{1, 1}
	never   = bounds{0, 0}
	perhaps = bounds{0, 1}
)

// hammer shoots at one node and counts what comes back.
type hammer struct {
	*rig
	seed     uint64
	url      string
	steady   string // id of a workload that runs all the time
	agent    int    // process id of its agent
	arsenal  arsenal
	work     []nex.Workload // of the good clients
	captured capture
	restarts atomic.Int32 // events that tell of a lost machine
}

// capture is what somebody who listens has seen of good requests.
type capture struct {
	mu   sync.Mutex
	seen [][]byte
}

func (c *capture) add(body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) < 1000 {
		c.seen = append(c.seen, body)
	}
}

func (c *capture) any(random *rand.Rand) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) == 0 {
		return nil
	}
	return c.seen[random.IntN(len(c.seen))]
}

// gunner is one connection of those that shoot.
type gunner struct {
	*hammer
	t      *testing.T
	nc     *nats.Conn
	random *rand.Rand
	inbox  string

	shots   []bounds       // what each is answered with
	answers []atomic.Int32 // how often each was
	nobody  atomic.Int32   // told by the NATS server
	window  chan struct{}  // shots whose answer is due
	wrong   atomic.Int32   // answers that are none
}

// shoot sends everything, no more at a time than the node works on.
func (g *gunner) shoot(count int) {
	g.shots, g.answers = make([]bounds, count), make([]atomic.Int32, count)
	sub, err := g.nc.Subscribe(g.inbox+".*", g.receive)
	if err != nil {
		g.t.Error(err)
		return
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		g.t.Error(err)
	}
	expectNobody := int32(0)
	for i := range count {
		s := g.next()
		m := &nats.Msg{Subject: s.subject, Data: s.body, Header: s.header, Reply: g.inbox + "." + strconv.Itoa(i)}
		switch {
		case s.mute:
			s.answers, m.Reply = never, ""
		case s.nobody:
			s.answers = never
			expectNobody++
		}
		g.shots[i] = s.answers
		if s.answers.least > 0 {
			if !g.wait() {
				return
			}
		}
		if err := g.nc.PublishMsg(m); err != nil {
			g.t.Errorf("%s: %v", s.subject, err)
			return
		}
	}
	settled(g.t, "all answers", func() bool {
		return len(g.window) == 0 && g.nobody.Load() == expectNobody
	})
}

// wait returns when not too many answers are due.
func (g *gunner) wait() bool {
	select {
	case g.window <- struct{}{}:
		return true
	default:
	}
	select {
	case g.window <- struct{}{}:
		return true
	case <-time.After(nextest.Patience):
		g.t.Errorf("%d shots are not answered", cap(g.window))
		return false
	}
}

// receive counts an answer.
func (g *gunner) receive(m *nats.Msg) {
	i, err := strconv.Atoi(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
	if err != nil || i >= len(g.answers) {
		g.t.Errorf("an answer on %s", m.Subject)
		return
	}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		g.nobody.Add(1)
		return
	}
	if !answers(m.Data) && g.wrong.Add(1) <= 5 {
		g.t.Errorf("no answer: %.500s", m.Data)
	}
	if g.answers[i].Add(1) == 1 && g.shots[i].least > 0 {
		<-g.window
	}
}

// answers reports whether data is a reply of a node that has no defect. What
// is no refusal is read less closely: there are many.
func answers(data []byte) bool {
	if !bytes.HasPrefix(data, []byte(`{"type":"io.nats.nex.v1.`)) {
		return false
	}
	if !bytes.Contains(data, []byte(`"data":""`)) {
		return bytes.Contains(data, []byte(`"data":{"`)) && bytes.HasSuffix(data, []byte("}}"))
	}
	var e nex.Envelope
	return json.Unmarshal(data, &e) == nil && e.Error != "" && len(e.Error) < 5000 && e.Code.Known() &&
		(e.Code != nex.Internal || strings.HasPrefix(e.Error, "Failed to cache workload bytes: "))
}

// check compares what came with what should have. First it asks again on the
// subjects on which a node answers in order.
func (g *gunner) check() {
	for _, subject := range []string{nex.AuctionSubject, nex.WorkloadPingSubject + ".default.steady", nex.StopSubject("default", g.node.NodeID)} {
		if _, err := g.nc.Request(subject, nil, nextest.Patience); err != nil {
			g.t.Errorf("%s: %v", subject, err)
		}
	}
	wrong := 0
	for i, s := range g.shots {
		if n := g.answers[i].Load(); n < s.least || n > s.most {
			if wrong++; wrong <= 5 {
				g.t.Errorf("shot %d has %d answers, want %d to %d", i, n, s.least, s.most)
			}
		}
	}
}

// settled waits for a condition that nothing tells of.
func settled(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline, tick := time.After(nextest.Patience), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Errorf("waited in vain for %s", what)
			return
		}
	}
}

// newHammer runs a node with a workload that is to survive.
func newHammer(t *testing.T) *hammer {
	t.Helper()
	seed := rand.Uint64()
	if given, err := strconv.ParseUint(os.Getenv("NEX_TEST_SEED"), 10, 64); err == nil {
		seed = given
	}
	t.Logf("NEX_TEST_SEED=%d", seed)
	h := &hammer{rig: &rig{dir: t.TempDir()}, seed: seed}
	srv, s := nextest.Server(t), settings(t)
	s.PoolSize, s.ReplayWindow = 0, time.Hour
	s.AdminIssuers = []string{"ACFIRY65OQE7DFP5KLNS2PF2LVZMUZYJX4OZIEQ36N2IQANUB5XVYYOU"}
	h.node, h.end = runConfig(t, node.Config{
		Settings: s, Version: "test", StateDir: h.dir, Server: srv.ClientURL(), Log: slog.New(slog.DiscardHandler),
	})
	h.url = srv.ClientURL()
	h.with(t, srv)
	if _, err := h.nc.Subscribe(nex.EventSubject("*", nex.WorkloadRestarting{}.EventType()), func(*nats.Msg) { h.restarts.Add(1) }); err != nil {
		t.Fatal(err)
	}
	h.steady = h.mustDeployJS(t, "steady", "t.steady", echo)
	h.agent = agents(t, h.dir)[0]
	for i := range 3 {
		w := h.upload(t, clientName(i), nex.V8, []byte(echo))
		w.TriggerSubjects = []string{"t." + w.Name}
		h.work = append(h.work, w)
	}
	h.arsenal = newArsenal(t, h.rig, rand.New(rand.NewPCG(seed, 1000)))
	h.works(t)
	return h
}

func clientName(i int) string { return fmt.Sprintf("client%d", i) }

// client deploys, calls and stops until it is over, and returns the ids of
// what it left running.
func (h *hammer) client(t *testing.T, i int, over *atomic.Bool) (left []string) {
	w := h.work[i]
	for n := 0; n < 5 || n < 60 && !over.Load(); n++ {
		m, subject := ours, w.TriggerSubjects[0]
		if n%4 == 3 {
			m = theirs
			m.deploy(t, h.rig, w)
		}
		body := m.deploy(t, h.rig, w)
		deployed := h.patiently(t, nex.DeploySubject("default", h.node.NodeID), body)
		id := deployed.id(t)
		h.captured.add(body)
		payload := []byte(fmt.Sprint(w.Name, n))
		if reply := h.call(t, subject, payload); string(reply.Data) != string(payload) {
			t.Errorf("%s: %q %v", payload, reply.Data, reply.Header)
		}
		if n%20 == 4 {
			left = append(left, id)
			continue
		}
		stop := m.stop(t, h.rig, w.Name, id)
		h.patiently(t, nex.StopSubject("default", h.node.NodeID), stop).id(t)
		h.captured.add(stop)
	}
	return left
}

// patiently sends a request until the node has time for it.
func (h *hammer) patiently(t *testing.T, subject string, body []byte) (a answer) {
	t.Helper()
	settled(t, "a node that is not overloaded", func() bool {
		a = h.tell(t, subject, body)
		return a.Code != nex.Overloaded
	})
	return a
}

// measure is what a node may not use ever more of. The test is one process
// with it.
type measure struct {
	goroutines int
	heap       uint64
}

func measured() measure {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return measure{runtime.NumGoroutine(), m.HeapAlloc}
}

// bounded checks that the node has let go of everything.
func (h *hammer) bounded(t *testing.T, before measure) {
	t.Helper()
	now := measured()
	settled(t, fmt.Sprintf("%d goroutines to become %d and some", now.goroutines, before.goroutines), func() bool {
		now = measured()
		return now.goroutines <= before.goroutines+20
	})
	if now.heap > before.heap+64<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before.heap, now.heap)
	}
	size := int64(0)
	err := filepath.WalkDir(h.dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, ierr := d.Info(); ierr == nil { // what is gone meanwhile takes no room
				size += info.Size()
			}
		}
		return nil
	})
	if replays, rerr := os.Stat(filepath.Join(h.dir, "replays")); err != nil || rerr != nil || size > 16<<20 || replays.Size() > 1<<20 {
		t.Errorf("the state directory holds %d bytes: %v, %v", size, err, rerr)
	}
	t.Logf("goroutines %d, %d; heap %d, %d; state %d", before.goroutines, now.goroutines, before.heap, now.heap, size)
}
