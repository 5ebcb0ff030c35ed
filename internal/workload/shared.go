package workload

import (
	"context"
	"sync"
)

// sharing gives every service a guest of its own, and the functions of one
// namespace one guest together. A shared guest is released by its last user.
type sharing struct {
	guests Guests

	mu     sync.Mutex
	shared map[string]*tenancy // by namespace
}

// tenancy is a shared guest, or one on its way.
type tenancy struct {
	users int           // guarded by sharing.mu
	ready chan struct{} // closed when guest or err is set
	guest Guest
	err   error
}

// acquire returns a guest for a workload; release gives it back.
func (s *sharing) acquire(ctx context.Context, spec Spec) (g Guest, release func(), err error) {
	if !spec.Type.IsFunction() {
		g, err := s.guests.Take(ctx)
		if err != nil {
			return nil, nil, err
		}
		return g, g.Release, nil
	}
	for {
		t, first := s.join(spec.Namespace)
		if first {
			t.guest, t.err = s.guests.Take(ctx)
			close(t.ready)
		}
		select {
		case <-t.ready:
			err = t.err
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err == nil {
			return t.guest, func() { s.leave(spec.Namespace, t) }, nil
		}
		s.leave(spec.Namespace, t)
		if first || ctx.Err() != nil {
			return nil, nil, err
		}
		// Who began the tenancy failed, perhaps because it was stopped.
	}
}

// join finds the tenancy of a namespace, or begins one.
func (s *sharing) join(namespace string) (t *tenancy, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t = s.shared[namespace]
	if t == nil || t.over() {
		t = &tenancy{ready: make(chan struct{})}
		s.shared[namespace] = t
		first = true
	}
	t.users++
	return t, first
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

// leave releases the guest when its last user has left. Whoever began the
// tenancy is a user until the guest is there.
func (s *sharing) leave(namespace string, t *tenancy) {
	s.mu.Lock()
	t.users--
	last := t.users == 0
	if last && s.shared[namespace] == t {
		delete(s.shared, namespace)
	}
	s.mu.Unlock()
	if last && t.guest != nil {
		t.guest.Release()
	}
}
