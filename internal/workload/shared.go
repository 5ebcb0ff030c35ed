package workload

import (
	"context"
	"slices"
	"sync"
)

// maxFunctions is how many functions may share a guest. Engines may take fewer.
const maxFunctions = 1000

// sharing gives every service a guest of its own, and the functions of one
// group one guest together; when that is full they have another one. A shared
// guest is released by its last user.
type sharing struct {
	guests Guests

	mu     sync.Mutex
	shared map[group][]*tenancy
}

// tenancy is a shared guest, or one on its way. Fields above ready are guarded
// by sharing.mu.
type tenancy struct {
	users  int
	loaded bool          // a function has come up here
	full   bool          // the guest refused one for lack of room, and none has left since
	ready  chan struct{} // closed when guest or err is set
	guest  Guest
	err    error
}

// seat is a workload's place on a guest; release gives it back.
type seat struct {
	guest   Guest
	sharing *sharing
	group   group
	tenancy *tenancy // nil for a guest that is not shared
	kept    bool     // the workload has come up here; guarded by sharing.mu
}

// acquire returns a seat for a workload: on a guest of its own if it is to
// be alone, else on one of its group's.
func (s *sharing) acquire(ctx context.Context, with group, alone bool) (*seat, error) {
	if alone {
		g, err := s.guests.Take(ctx)
		if err != nil {
			return nil, err
		}
		return &seat{guest: g}, nil
	}
	for {
		t, first := s.join(with)
		p := &seat{sharing: s, group: with, tenancy: t}
		if first {
			t.guest, t.err = s.guests.Take(ctx)
			close(t.ready)
		}
		var err error
		select {
		case <-t.ready:
			err = t.err
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err == nil {
			p.guest = t.guest
			return p, nil
		}
		p.release()
		if first || ctx.Err() != nil {
			return nil, err
		}
		// Who began the tenancy failed, perhaps because it was stopped.
	}
}

// join finds a tenancy of a group that has room, or begins one.
func (s *sharing) join(with group) (t *tenancy, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.shared[with] {
		if t.users < maxFunctions && !t.full && !t.over() {
			t.users++
			return t, false
		}
	}
	t = &tenancy{users: 1, ready: make(chan struct{})}
	s.shared[with] = append(s.shared[with], t)
	return t, true
}

// over reports whether a tenancy has failed or its guest takes no calls.
func (t *tenancy) over() bool {
	select {
	case <-t.ready:
	default:
		return false
	}
	if t.err != nil {
		return true
	}
	select {
	case <-t.guest.Done():
		return true
	default:
		return false
	}
}

// keep notes that the workload has come up.
func (p *seat) keep() {
	if p.tenancy == nil {
		return
	}
	p.sharing.mu.Lock()
	defer p.sharing.mu.Unlock()
	p.kept, p.tenancy.loaded = true, true
}

// full notes that the guest has no room for the workload, and reports whether
// another one may have: not if it refused the first that came.
func (p *seat) full() bool {
	if p.tenancy == nil {
		return false
	}
	p.sharing.mu.Lock()
	defer p.sharing.mu.Unlock()
	p.tenancy.full = true
	return p.tenancy.loaded
}

// release gives the seat back, and ends the guest when its last user has left.
// Whoever began the tenancy is a user until the guest is there.
func (p *seat) release() {
	if p.tenancy == nil {
		p.guest.Release()
		return
	}
	s, t := p.sharing, p.tenancy
	s.mu.Lock()
	t.users--
	t.full = t.full && !p.kept
	last := t.users == 0
	if last {
		rest := slices.DeleteFunc(s.shared[p.group], func(o *tenancy) bool { return o == t })
		if s.shared[p.group] = rest; len(rest) == 0 {
			delete(s.shared, p.group)
		}
	}
	s.mu.Unlock()
	if last && t.guest != nil {
		t.guest.Release()
	}
}
