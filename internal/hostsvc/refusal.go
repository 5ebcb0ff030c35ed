package hostsvc

import (
	"sync"
	"time"

	"nex"
	"nex/internal/guest"
)

// Refusal is a call that policy or a limit forbade.
type Refusal struct {
	Service string
	Method  string
	Code    nex.Code // denied, overloaded or too_large
	Reason  string
	Untold  int64 // how many like it were not told since the last one that was
}

// noteEvery is how often the same kind of refusal is told of a session.
const noteEvery = time.Second

// notes remembers what was told of a session's refusals.
type notes struct {
	mu    sync.Mutex
	total int64
	last  map[noteKey]note
}

type noteKey struct {
	service string
	code    nex.Code
}

type note struct {
	at     time.Time
	untold int64
}

// note counts a call that was refused by policy or a limit, and tells of it
// unless one like it was told of just now. There are few kinds: services and
// codes are the node's, whatever a call says.
func (s *Session) note(asked guest.HostCall, err *nex.Error) {
	if err.Code != nex.Denied && err.Code != nex.Overloaded && err.Code != nex.TooLarge {
		return
	}
	if untold, tell := s.notes.count(noteKey{asked.Service, err.Code}, time.Now()); tell {
		s.server.refused(s.tenant, Refusal{asked.Service, asked.Method, err.Code, err.Message, untold})
	}
}

func (n *notes) count(key noteKey, now time.Time) (untold int64, tell bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.total++
	if n.last == nil {
		n.last = map[noteKey]note{}
	}
	last, known := n.last[key]
	if known && now.Sub(last.at) < noteEvery {
		n.last[key] = note{last.at, last.untold + 1}
		return 0, false
	}
	n.last[key] = note{at: now}
	return last.untold, true
}

// Refused is how many calls policy and limits refused.
func (s *Session) Refused() int64 {
	s.notes.mu.Lock()
	defer s.notes.mu.Unlock()
	return s.notes.total
}
