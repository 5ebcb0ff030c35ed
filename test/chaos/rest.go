//go:build linux

package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"nex"
	"nex/internal/nextest"
)

// restPatience bounds how long the world may take to be well after the faults.
const restPatience = 2 * time.Minute

// well reports what is not as it should be with the workloads of a node, as it
// lists them. Services are looked at only if they are to be.
func (m *model) well(ctx context.Context, h *host, services bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	before := m.in(h.index, live)
	info, err := h.w.client.Info(ctx, h.id)
	if err != nil {
		return fmt.Errorf("node %d does not answer: %w", h.index, err)
	}
	listed := map[string]nex.MachineSummary{}
	for _, s := range info.Machines {
		listed[s.ID] = s
	}
	now := map[string]state{}
	for _, l := range m.in(h.index, live) {
		now[l.name] = l.state
	}
	for _, l := range before {
		s, there := listed[l.id]
		switch {
		case now[l.name] != live || l.kind.service() && !services: // it is being stopped
		case !there:
			return fmt.Errorf("%s is not there", &l)
		case !s.Healthy:
			return fmt.Errorf("%s is not healthy: %s", &l, s.Unhealthy)
		case s.Workload.Name != l.name:
			return fmt.Errorf("%s is listed as %s", &l, s.Workload.Name)
		}
	}
	return nil
}

// rest waits until all is well, when there are no faults any more.
func (r *run) rest(ctx context.Context) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, restPatience)
	defer cancel()
	for _, h := range r.w.nodes {
		for {
			err := r.m.well(ctx, h, true)
			if err == nil {
				break
			}
			if !pause(ctx, look) {
				r.m.violate("%s after the last fault: %v", restPatience, err)
				break
			}
		}
	}
	for _, l := range r.m.in(-1, live) {
		r.answers(ctx, l)
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	r.m.counts.rest = time.Since(began)
}

// answers calls a workload until it answers as it should.
func (r *run) answers(ctx context.Context, l load) {
	var err error
	for {
		if err = r.answersNow(l); err == nil {
			return
		}
		if !pause(ctx, look) {
			r.m.violate("%s does not answer: %v", &l, err)
			return
		}
	}
}

func (r *run) answersNow(l load) error {
	payload := "rest " + l.name
	m, err := r.w.nc.Request(l.subject, []byte(payload), l.kind.timeout()+slack)
	if err != nil {
		return err
	}
	failed := m.Header.Get("Nats-Service-Error-Code") != ""
	if failed != (l.kind.reply == nil) || !failed && string(m.Data) != l.kind.reply(payload, l.subject) {
		return fmt.Errorf("it says %.80q", m.Data)
	}
	return nil
}

// takeStock holds what the nodes list against what they should.
func (r *run) takeStock(ctx context.Context) {
	for _, h := range r.w.nodes {
		info, err := r.w.client.Info(ctx, h.id)
		if err != nil {
			r.m.violate("node %d does not answer after the rest: %v", h.index, err)
			continue
		}
		for _, s := range info.Machines {
			r.adopt(h, s)
		}
		if records, err := os.ReadDir(filepath.Join(h.dir, "workloads")); err != nil || len(records) != len(info.Machines) {
			r.m.violate("node %d has recorded %d workloads and lists %d (%v)", h.index, len(records), len(info.Machines), err)
		}
	}
	for _, l := range r.m.in(-1, stopped, refused) {
		if r.m.pick(0, func(other *load) bool { return other.subject == l.subject && other.state == live }) != nil {
			continue // a copy answers
		}
		if m, err := r.w.nc.Request(l.subject, []byte("rest"), l.kind.timeout()+slack); err == nil {
			r.m.violate("%s is %s and answers %.60q", &l, l.state, m.Data)
		}
	}
}

// adopt decides about a workload that is listed: it should be there, or it may
// be, and then is known from now on.
func (r *run) adopt(h *host, s nex.MachineSummary) {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	l := r.m.loads[(&load{name: s.Workload.Name, node: h.index}).key()]
	switch {
	case l == nil:
		r.m.violateLocked("node %d lists %s (%s), which nobody asked it for", h.index, s.Workload.Name, s.ID)
	case l.state == unsure, l.state == stopUnsure && l.id == s.ID:
		l.state, l.id = live, s.ID
	case l.state != live || l.id != s.ID:
		r.m.violateLocked("node %d lists %s (%s), which is %s", h.index, l, s.ID, l.state)
	}
}

// footprint is what a node's process takes.
type footprint struct{ goroutines, files, agents int }

// measure asks a node for its goroutines, and the system for its files.
func measure(h *host) (f footprint, err error) {
	h.proc.signal(syscall.SIGUSR1)
	said, err := h.proc.hears("goroutines", nextest.Patience)
	if err == nil && len(said) == 1 {
		f.goroutines, err = strconv.Atoi(said[0])
	}
	f.agents = len(h.agents())
	f.files = openFiles(h.proc.cmd.Process.Pid)
	return f, err
}

// What a node may have more of than at the beginning.
const (
	moreGoroutines = 8
	moreFiles      = 6
)

// settle waits until a node without workloads takes no more than before, and
// reports if it does not.
func (r *run) settle(ctx context.Context, h *host, before footprint) {
	ctx, cancel := context.WithTimeout(ctx, nextest.Patience)
	defer cancel()
	var now footprint
	var err error
	for {
		now, err = measure(h)
		if err == nil && now.goroutines <= before.goroutines+moreGoroutines && now.files <= before.files+moreFiles && now.agents <= 1 {
			break
		}
		if !pause(ctx, look) {
			r.m.violate("node %d has %d goroutines, %d open files and %d agents without workloads, and had %d, %d and 1 (%v)",
				h.index, now.goroutines, now.files, now.agents, before.goroutines, before.files, err)
			break
		}
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	c := &r.m.counts
	c.goroutines = append(c.goroutines, fmt.Sprintf("%d %d", before.goroutines, now.goroutines))
	c.files = append(c.files, fmt.Sprintf("%d %d", before.files, now.files))
}
