//go:build linux

package chaos

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"nex"
)

// state is what the driver knows of a workload.
type state int

const (
	asked      state = iota // its deploy is not answered yet
	refused                 // its deploy was
	unsure                  // the answer of its deploy was lost
	live                    // its deploy was answered with success
	stopping                // its stop is not answered yet
	stopped                 // its stop was
	stopUnsure              // the answer of its stop was lost
)

var stateNames = []string{"asked for", "refused", "perhaps deployed", "deployed", "being stopped", "stopped", "perhaps stopped"}

func (s state) String() string { return stateNames[s] }

// load is a workload.
type load struct {
	name    string
	subject string
	node    int
	kind    *kind

	// Guarded by model.mu.
	state   state
	id      string
	calm    bool      // its stop was answered while events could not be lost
	stopped time.Time // when it was
}

// key is what a workload is known by here: its name, which copies of it have too,
// and its node.
func (l *load) key() string { return fmt.Sprintf("%s@%d", l.name, l.node) }

func (l *load) String() string { return fmt.Sprintf("%s (%s) on node %d", l.name, l.id, l.node) }

// call is a message to a workload.
type call struct {
	id      uint64
	load    *load
	payload string
	sent    time.Time
	replies int
	judged  bool // as one without a reply
}

// history are the events of a workload id.
type history struct {
	node                 string // its id
	deployed, undeployed int
}

// model is what must be true. Safe for concurrent use.
type model struct {
	begun time.Time
	log   func(format string, args ...any)

	mu         sync.Mutex
	loads      map[string]*load // by key
	calls      map[uint64]*call
	waiting    []*call // without a reply
	histories  map[string]*history
	faults     []*fault
	violations []string
	counts     counts
}

func newModel(log func(format string, args ...any)) *model {
	return &model{
		begun: time.Now(), log: log, loads: map[string]*load{}, calls: map[uint64]*call{}, histories: map[string]*history{},
		counts: newCounts(),
	}
}

// violate records that something is not as it must be.
func (m *model) violate(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.violateLocked(format, args...)
}

// lastFaults is how many faults a violation tells of.
const lastFaults = 5

func (m *model) violateLocked(format string, args ...any) {
	now := time.Now()
	text := fmt.Sprintf("%.3f s: ", now.Sub(m.begun).Seconds()) + fmt.Sprintf(format, args...)
	var last []string
	for _, f := range m.faults[max(0, len(m.faults)-lastFaults):] {
		last = append(last, f.describe(m.begun))
	}
	text += "; last faults: " + strings.Join(last, ", ")
	m.violations = append(m.violations, text)
	m.log("VIOLATION %s", text)
}

// fault is something that was done to the world.
type fault struct {
	kind  faultKind
	node  int // -1 for all
	what  string
	begin time.Time
	end   time.Time // when everything was well again; zero before
}

func (f *fault) describe(begun time.Time) string {
	end := "…"
	if !f.end.IsZero() {
		end = fmt.Sprintf("%.1f", f.end.Sub(begun).Seconds())
	}
	return fmt.Sprintf("%s at %.1f–%s s", f.what, f.begin.Sub(begun).Seconds(), end)
}

// begin notes a fault.
func (m *model) begin(kind faultKind, node int, what string) *fault {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := &fault{kind: kind, node: node, what: what, begin: time.Now()}
	m.faults = append(m.faults, f)
	m.counts.faults[kind]++
	m.log("fault: %s", what)
	return f
}

// over notes that a fault and its consequences are.
func (m *model) over(f *fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f.end = time.Now()
	m.log("over: %s", f.what)
}

// disturbed reports whether a fault that matters was there at some time, for a
// node.
func (m *model) disturbedLocked(from, to time.Time, node int, matters func(faultKind) bool) bool {
	return slices.ContainsFunc(m.faults, func(f *fault) bool {
		return (f.node < 0 || f.node == node) && matters(f.kind) && f.begin.Before(to) && (f.end.IsZero() || f.end.After(from))
	})
}

// event takes note of an event about a workload.
func (m *model) event(e nex.Event) {
	at := strings.LastIndexByte(e.Source(), '-')
	node, id := e.Source()[:max(at, 0)], e.Source()[at+1:]
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.histories[id]
	if h == nil {
		h = &history{node: node}
		m.histories[id] = h
	}
	switch e.Type() {
	case nex.WorkloadDeployed{}.EventType():
		if h.deployed++; h.undeployed > 0 {
			m.violateLocked("workload %s is deployed after it was undeployed", id)
		}
	case nex.WorkloadUndeployed{}.EventType():
		if h.undeployed++; h.undeployed > 1 {
			m.violateLocked("workload %s is undeployed for the %d. time", id, h.undeployed)
		}
	}
}

// forgetEnds allows what a node runs to be deployed again: it told of its end
// when the node ended in order. That is also true of what it runs although the
// answer to the deploy was lost.
func (m *model) forgetEnds(node string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	stays := map[string]bool{}
	for _, l := range m.loads {
		stays[l.id] = l.state == stopped
	}
	for id, h := range m.histories {
		if h.node == node && !stays[id] {
			h.undeployed = 0
		}
	}
}

// checkEvents is for the end, when all events have come.
func (m *model) checkEvents() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.loads {
		h := m.histories[l.id]
		if l.state == stopped && l.calm && (h == nil || h.undeployed == 0) {
			m.violateLocked("workload %s was stopped, and there is no undeploy event", l)
		}
		if l.state == live && h != nil && h.undeployed > 0 {
			m.violateLocked("workload %s is undeployed, and nobody stopped it", l)
		}
	}
}

// add notes a workload that is going to be asked for.
func (m *model) add(l *load) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loads[l.key()] = l
}

// pick returns a workload in one of some states, by a number that any is good for.
func (m *model) pick(number uint64, want func(*load) bool) *load {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for _, l := range m.loads {
		if want(l) {
			names = append(names, l.key())
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return m.loads[names[number%uint64(len(names))]]
}

// in lists the workloads of a node in some state, -1 for all nodes.
func (m *model) in(node int, states ...state) (list []load) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.loads {
		if (node < 0 || l.node == node) && slices.Contains(states, l.state) {
			list = append(list, *l)
		}
	}
	slices.SortFunc(list, func(a, b load) int { return strings.Compare(a.key(), b.key()) })
	return list
}

// set changes what is known of a workload.
func (m *model) set(key string, change func(l *load)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m.loads[key])
}

// disturbedCallLocked is [model.disturbedLocked] for whoever may have got a call:
// the workload's node, or one of its copies'.
func (m *model) disturbedCallLocked(c *call, from, to time.Time, matters func(faultKind) bool) bool {
	for _, l := range m.loads {
		if l.subject == c.load.subject && l.state != refused && m.disturbedLocked(from, to, l.node, matters) {
			return true
		}
	}
	return false
}
