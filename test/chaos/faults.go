//go:build linux

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"nex/internal/nextest"
	"nex/internal/nextest/liar"
)

// faultKind is what is done to the world.
type faultKind string

const (
	killAgent faultKind = "agent killed"
	stopAgent faultKind = "agent stopped"
	// lieAgent has the next agent that starts be one that lies.
	lieAgent faultKind = "agent lies"
	fillDisk faultKind = "disk full"
	killNode faultKind = "node killed"
	stopNode faultKind = "node stopped"
	// restartNode ends a node in order and starts it again.
	restartNode faultKind = "node restarted"
	killServer  faultKind = "server killed"
	stopServer  faultKind = "server stopped"
	delayLink   faultKind = "connection delayed"
	stallLink   faultKind = "connection stalled"
	cutLink     faultKind = "connection cut"
	// hostBusy is not done by the driver: it was not given the processor.
	hostBusy faultKind = "host busy"
)

// light are faults that excuse nothing, and heavy those that do.
var (
	light = []faultKind{killAgent, killAgent, stopAgent, fillDisk, lieAgent}
	heavy = []faultKind{killNode, killNode, stopNode, restartNode, killServer, killServer, stopServer, delayLink, stallLink, cutLink, cutLink}
)

// excuses reports whether a call may have no reply through a fault.
func (k faultKind) excuses() bool { return slices.Contains(heavy, k) || k == hostBusy }

// losesEvents reports whether events may get lost through a fault.
func (k faultKind) losesEvents() bool { return slices.Contains(heavy, k) }

// step is one fault of a plan.
type step struct {
	at     time.Duration
	kind   faultKind
	node   int
	number uint64        // says which agent
	hold   time.Duration // how long it lasts
	delay  time.Duration // of a connection
}

func (s step) String() string {
	return fmt.Sprintf("%7.2f s: %s, node %d, for %s", s.at.Seconds(), s.kind, s.node, s.hold.Round(time.Millisecond))
}

// plan draws the faults of a run. Light ones come every few seconds; so do heavy
// ones, with time between them in which nothing is excused.
func plan(random *rand.Rand, o Options) []step {
	var steps []step
	pace := time.Duration(max(1, o.Pace))
	add := func(kinds []faultKind, least, most time.Duration) {
		between := func(a, b time.Duration) time.Duration { return (a + time.Duration(random.Int64N(int64(b-a)))) / pace }
		for at := between(least, most); at < o.Duration; at += between(least, most) {
			steps = append(steps, step{
				at: at, kind: kinds[random.IntN(len(kinds))], node: random.IntN(o.Nodes), number: random.Uint64(),
				hold: between(100*time.Millisecond, 8*time.Second), delay: between(5*time.Millisecond, 300*time.Millisecond),
			})
		}
	}
	add(light, time.Second, 5*time.Second)
	if !o.LightOnly {
		add(heavy, 3*time.Second, 12*time.Second)
	}
	slices.SortFunc(steps, func(a, b step) int { return int(a.at - b.at) })
	return steps
}

// injector carries a plan out.
type injector struct {
	w     *world
	m     *model
	under sync.WaitGroup // faults under way
	disks []sync.Mutex   // one for each node
	links []sync.Mutex
}

// run does what a plan says until ctx ends; then it has everything healed.
func (j *injector) run(ctx context.Context, steps []step) {
	for _, s := range steps {
		if !pause(ctx, time.Until(j.m.begun.Add(s.at))) {
			break
		}
		j.under.Go(func() { j.do(ctx, s) })
	}
	j.under.Wait()
}

func (j *injector) do(ctx context.Context, s step) {
	h := j.w.nodes[s.node]
	switch s.kind {
	case killAgent, stopAgent:
		j.agent(ctx, h, s)
	case lieAgent:
		j.lie(ctx, s)
	case fillDisk:
		j.disk(ctx, h, s)
	case killNode, stopNode, restartNode:
		j.node(ctx, h, s)
	case killServer, stopServer:
		j.server(ctx, s)
	case delayLink, stallLink, cutLink:
		j.link(ctx, h, s)
	}
}

// agent kills or stops one of a node's agents.
func (j *injector) agent(ctx context.Context, h *host, s step) {
	pids := h.agents()
	if len(pids) == 0 {
		return
	}
	pid := pids[s.number%uint64(len(pids))]
	p, err := os.FindProcess(pid) // the very process, not its number
	if err != nil {
		return
	}
	defer func() { _ = p.Release() }() // it never fails
	f := j.m.begin(s.kind, s.node, fmt.Sprintf("agent %d of node %d %s", pid, s.node, s.kind[len("agent "):]))
	defer j.m.over(f)
	if s.kind == killAgent {
		_ = p.Kill() // it may have ended by now
		return
	}
	_ = p.Signal(syscall.SIGSTOP) // likewise
	pause(ctx, s.hold)
	_ = p.Signal(syscall.SIGCONT) // likewise
}

// lie has the next agent that starts, of whichever node, be a hostile guest.
func (j *injector) lie(ctx context.Context, s step) {
	lies := liar.Lies()
	lie := lies[s.number%uint64(len(lies))].Name
	f := j.m.begin(s.kind, s.node, "agent lies: "+lie)
	defer j.m.over(f)
	if err := nextest.LieNext(j.w.agent(), lie); err != nil {
		j.m.violate("the driver cannot have an agent lie: %v", err)
	}
	pause(ctx, s.hold)
}

// disk takes all space on a node's disk.
func (j *injector) disk(ctx context.Context, h *host, s step) {
	if !h.full || !j.disks[s.node].TryLock() {
		return
	}
	defer j.disks[s.node].Unlock()
	f := j.m.begin(s.kind, s.node, fmt.Sprintf("disk of node %d full", s.node))
	defer j.m.over(f)
	if err := h.fill(true); err != nil {
		j.m.violate("the driver cannot fill a disk: %v", err)
	}
	pause(ctx, s.hold)
	if err := h.fill(false); err != nil {
		j.m.violate("the driver cannot free a disk: %v", err)
	}
}

// node ends a node and starts it again, or stops it for a while.
func (j *injector) node(ctx context.Context, h *host, s step) {
	if !h.mu.TryLock() {
		return
	}
	defer h.mu.Unlock()
	f := j.m.begin(s.kind, s.node, fmt.Sprintf("node %d %s", s.node, s.kind[len("node "):]))
	defer j.recovered(f, []*host{h})
	if s.kind == stopNode {
		h.proc.signal(syscall.SIGSTOP)
		pause(ctx, s.hold)
		h.proc.signal(syscall.SIGCONT)
		return
	}
	if s.kind == restartNode {
		if err := h.proc.terminate(endPatience); err != nil {
			j.m.violate("node %d did not end in order: %v", s.node, err)
		}
	}
	h.proc.kill()
	pause(ctx, s.hold/2)
	if s.kind == restartNode {
		_ = j.w.nc.FlushTimeout(slack) // so that its last events are there, if they can be
		j.m.forgetEnds(h.id)
	}
	if err := h.start(); err != nil {
		j.m.violate("node %d does not start: %v", s.node, err)
	}
}

// server kills the NATS server and starts it again, or stops it for a while.
func (j *injector) server(ctx context.Context, s step) {
	if !j.w.mu.TryLock() {
		return
	}
	defer j.w.mu.Unlock()
	f := j.m.begin(s.kind, -1, string(s.kind))
	defer j.recovered(f, j.w.nodes)
	if s.kind == stopServer {
		j.w.server.signal(syscall.SIGSTOP)
		pause(ctx, s.hold)
		j.w.server.signal(syscall.SIGCONT)
		return
	}
	j.w.server.kill()
	pause(ctx, s.hold/2)
	if err := j.w.startServer(); err != nil {
		j.m.violate("the server does not start: %v", err)
	}
}

// link disturbs a node's connection.
func (j *injector) link(ctx context.Context, h *host, s step) {
	if !j.links[s.node].TryLock() {
		return
	}
	defer j.links[s.node].Unlock()
	f := j.m.begin(s.kind, s.node, fmt.Sprintf("connection of node %d %s", s.node, s.kind[len("connection "):]))
	defer j.recovered(f, []*host{h})
	switch s.kind {
	case delayLink:
		h.proxy.setDelay(s.delay)
		pause(ctx, s.hold)
		h.proxy.setDelay(0)
	case stallLink:
		h.proxy.setStalled(true)
		pause(ctx, s.hold)
		h.proxy.setStalled(false)
	case cutLink:
		h.proxy.setCut(true)
		pause(ctx, s.hold)
		h.proxy.setCut(false)
	}
}

const (
	// recoverPatience bounds how long a fault excuses anything after it has ended.
	recoverPatience = time.Minute
	// look is the time between two looks whether all is well.
	look = 100 * time.Millisecond
)

// recovered ends a fault: when the nodes answer and what they run is well.
func (j *injector) recovered(f *fault, nodes []*host) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), recoverPatience)
	defer cancel()
	var err error
	for _, h := range nodes {
		for {
			if err = j.m.well(ctx, h, false); err == nil || !pause(ctx, look) {
				break
			}
		}
	}
	j.m.over(f)
	j.m.mu.Lock()
	defer j.m.mu.Unlock()
	j.m.counts.recoveries = append(j.m.counts.recoveries, time.Since(began))
	if err != nil {
		j.m.log("%s after %s there is still: %v", recoverPatience, f.what, err)
	}
}
