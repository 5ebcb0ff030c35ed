package guest

import (
	"context"
	"slices"
	"sync"
	"time"
)

// serving is the context of a call that this end works on. Its deadline is kept
// by the link's one alarm: a timer for each call would cost more than most
// calls do.
type serving struct {
	began time.Time
	due   time.Time // zero for none; set before anybody else sees the context

	// These belong to the goroutine that works on the call.
	turn    uint64        // the reader's number of it, if that is who does; see turn.begin
	waits   int           // how often it waited for the other end
	waited  time.Duration // how long that took
	yielded time.Time

	mu    sync.Mutex
	err   error
	done  chan struct{} // made when somebody asks for it
	after []*func()
}

var _ context.Context = (*serving)(nil)

// Deadline implements [context.Context].
func (s *serving) Deadline() (time.Time, bool) { return s.due, !s.due.IsZero() }

// servingKey is the key under which a context has the call it is of.
type servingKey struct{}

// Value implements [context.Context].
func (s *serving) Value(key any) any {
	if key == (servingKey{}) {
		return s
	}
	return nil
}

// Done implements [context.Context].
func (s *serving) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done == nil {
		s.done = make(chan struct{})
		if s.err != nil {
			close(s.done)
		}
	}
	return s.done
}

// Err implements [context.Context].
func (s *serving) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// AfterFunc is what [context.AfterFunc] looks for: it runs f on a goroutine of
// its own when the context ends, unless stop was called before.
func (s *serving) AfterFunc(f func()) (stop func() bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		go f()
		return func() bool { return false }
	}
	key := &f
	s.after = append(s.after, key)
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		n := slices.Index(s.after, key)
		if n < 0 {
			return false
		}
		s.after = slices.Delete(s.after, n, n+1)
		return true
	}
}

// end ends the context for a reason, once.
func (s *serving) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = err
	if s.done != nil {
		close(s.done)
	}
	for _, f := range s.after {
		go (*f)()
	}
	s.after = nil
}
