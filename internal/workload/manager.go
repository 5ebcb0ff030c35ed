package workload

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/rs/xid"

	"nex"
)

// Limits bound what a manager takes; 0 is unlimited.
type Limits struct {
	Workloads     int
	TotalBytes    int64 // artifacts of all workloads together
	WorkloadBytes int64 // one artifact
}

// Config is what a [Manager] works with. All fields but Limits are required.
type Config struct {
	Guests    Guests
	Artifacts Artifacts
	Conn      *nats.Conn // triggers come and are answered here
	Reporter  Reporter
	Log       *slog.Logger
	NodeID    string
	Limits    Limits
	Journal   Journal
	// Host opens the host services of a workload.
	Host func(id string, s Spec) Host
}

// Manager owns the workloads of a node.
type Manager struct {
	cfg     Config
	sharing sharing

	mu       sync.Mutex
	byID     map[string]*workload
	reserved int                  // deploys under way that have no workload yet
	bytes    int64                // artifact bytes of all workloads
	lameDuck bool                 // no restarts any more
	refusal  error                // of new workloads; nil while they are taken
	drained  bool                 // whoever drained it wants no workload back
	closing  bool                 // the node ends, and its workloads come back with it
	leaving  map[string]*workload // those of them that have ended
}

// NewManager makes a manager without workloads.
func NewManager(cfg Config) *Manager {
	return &Manager{
		cfg:     cfg,
		sharing: sharing{guests: cfg.Guests, shared: map[group][]*tenancy{}},
		byID:    map[string]*workload{},
		leaving: map[string]*workload{},
	}
}

// Slot is the right to deploy one workload.
type Slot struct {
	m    *Manager
	once sync.Once
}

// Reserve sets a slot aside, so that no number of deploys at once passes the
// node's limit. It must be released or used.
func (m *Manager) Reserve() (*Slot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refusal != nil {
		return nil, m.refusal
	}
	if m.fullLocked() {
		return nil, nex.Errorf(nex.Exhausted, "Node is at maximum workload limit. Deploy request denied")
	}
	m.reserved++
	return &Slot{m: m}, nil
}

// Full reports whether [Manager.Reserve] would refuse for lack of room.
func (m *Manager) Full() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fullLocked()
}

func (m *Manager) fullLocked() bool {
	limit := m.cfg.Limits.Workloads
	return limit > 0 && len(m.byID)+m.reserved >= limit
}

// Room is how many more workloads fit, 0 for any number. A full manager has
// none, see [Manager.Full].
func (m *Manager) Room() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(0, m.cfg.Limits.Workloads-len(m.byID)-m.reserved)
}

// Fits reports whether an artifact of this size, in bytes, is within the
// limits.
func (m *Manager) Fits(size int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tooLargeLocked(size, 0) == nil
}

// tooLargeLocked holds an artifact's size against the limits; it takes the
// place of counted bytes.
func (m *Manager) tooLargeLocked(size, counted int64) error {
	l := m.cfg.Limits
	if l.WorkloadBytes > 0 && size > l.WorkloadBytes {
		return nex.Errorf(nex.Exhausted, "Workload file size would exceed node limitations")
	}
	if l.TotalBytes > 0 && size > l.TotalBytes-(m.bytes-counted) {
		return nex.Errorf(nex.Exhausted, "Workload file size would exceed node total limitations")
	}
	return nil
}

// Release gives the slot back unless it was used. Idempotent.
func (s *Slot) Release() {
	s.once.Do(func() {
		s.m.mu.Lock()
		defer s.m.mu.Unlock()
		s.m.reserved--
	})
}

// Deploy runs a workload and returns its id once it answers its triggers, or
// runs if it is a service. If it fails, or ctx ends before, nothing of it is
// left. The workload outlives ctx.
func (m *Manager) Deploy(ctx context.Context, slot *Slot, spec Spec) (id string, err error) {
	started := make(chan error, 1)
	m.mu.Lock()
	if err := m.refusal; err != nil {
		m.mu.Unlock()
		return "", err
	}
	w := begin(m, past{id: xid.New().String()}, spec, started)
	m.byID[w.id] = w
	slot.once.Do(func() { m.reserved-- }) // the workload counts from here
	m.mu.Unlock()

	select {
	case err := <-started:
		if err != nil {
			<-w.done
			return "", err
		}
		return w.id, nil
	case <-ctx.Done():
		err := nex.Errorf(nex.Unavailable, "workload %s was not started: the node gave up the request", spec.Name)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = nex.Errorf(nex.Timeout, "workload %s did not start in time", spec.Name)
		}
		return "", errors.Join(err, w.stop(context.WithoutCancel(ctx), w.drain()))
	}
}

// Restore runs a workload that an earlier process of this node ran, under the
// same id, and does not wait for it: it is listed at once, and tried until it
// runs. The artifact is the one that it had.
func (m *Manager) Restore(slot *Slot, id string, spec Spec, sha256 string, restarts int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refusal != nil {
		return
	}
	m.byID[id] = begin(m, past{id: id, sha256: sha256, restarts: restarts, ran: true}, spec, nil)
	slot.once.Do(func() { m.reserved-- })
}

// Stop ends a workload and returns when it is gone. When ctx ends only the
// waiting does.
func (m *Manager) Stop(ctx context.Context, id string) error {
	m.mu.Lock()
	w := m.byID[id]
	m.mu.Unlock()
	switch {
	case w == nil && !m.isLeaving(id):
		return nex.Errorf(nex.NotFound, "No such workload")
	case w != nil:
		if err := w.stop(ctx, w.drain()); err != nil {
			return err
		}
	}
	if m.isLeaving(id) { // and would come back with its node
		m.mu.Lock()
		delete(m.leaving, id)
		m.mu.Unlock()
		m.cfg.Journal.Ended(id)
	}
	return nil
}

func (m *Manager) isLeaving(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leaving[id] != nil
}

// Get returns a deployed workload of a namespace, also one that has ended with
// its node and comes back with it.
func (m *Manager) Get(namespace, id string) (Summary, bool) {
	m.mu.Lock()
	w, left := m.byID[id], m.leaving[id]
	m.mu.Unlock()
	if w == nil {
		w = left
	}
	if w == nil || w.spec.Namespace != namespace {
		return Summary{}, false
	}
	s, ok := w.summary()
	return s, ok || left != nil
}

// Usage is what a service uses now, nil if that is not known.
func (m *Manager) Usage(id string) *nex.Usage {
	m.mu.Lock()
	w := m.byID[id]
	m.mu.Unlock()
	if w == nil {
		return nil
	}
	return w.usage()
}

// List returns the deployed workloads of all namespaces, oldest first.
func (m *Manager) List() []Summary {
	m.mu.Lock()
	all := slices.Collect(maps.Values(m.byID))
	m.mu.Unlock()
	list := make([]Summary, 0, len(all))
	for _, w := range all {
		if s, ok := w.summary(); ok {
			list = append(list, s)
		}
	}
	sortByAge(list)
	return list
}

// EndRestarts makes services that end from now on stay ended, as for a node
// that is to be emptied.
func (m *Manager) EndRestarts() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lameDuck = true
}

func (m *Manager) restarts() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.lameDuck
}

// allow returns the size check for one workload's artifact; what it allowed
// last counts toward the node's total until the workload is gone.
func (m *Manager) allow(w *workload) func(int64) error {
	return func(size int64) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if err := m.tooLargeLocked(size, w.bytes); err != nil {
			return err
		}
		m.bytes += size - w.bytes
		w.bytes = size
		return nil
	}
}

// Forget tells the journal of a workload that nobody wants any more. Those that
// end with their node come back with it. It is called for every workload that
// was deployed and has ended but not by itself; besides, it is for whoever recorded one and finds
// that it is gone.
func (m *Manager) Forget(id string) {
	m.mu.Lock()
	comesBack := m.closing && !m.drained
	if w := m.byID[id]; comesBack && w != nil {
		m.leaving[id] = w
	}
	m.mu.Unlock()
	if !comesBack {
		m.cfg.Journal.Ended(id)
	}
}

// remove forgets a workload whose loop has ended.
func (m *Manager) remove(w *workload) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byID, w.id)
	m.bytes -= w.bytes
	w.bytes = 0
}
