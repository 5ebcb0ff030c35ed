package hostsvc

import (
	"context"
	"errors"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/time/rate"

	"nex"
	"nex/internal/guest"
)

const (
	// maxAnswer is the longest payload of an answer; the rest of the message
	// has its place beside it.
	maxAnswer = guest.MaxMessage - 1<<20
	// maxHeld is how many bytes the answers that a session is working on may
	// have together. Without it a workload could have the node hold as many
	// long ones as it may have calls under way.
	maxHeld = 2 * guest.MaxMessage
	// longestCall bounds a call that has no deadline.
	longestCall = time.Minute
)

// Session is what one workload has of a server. It is safe for concurrent use.
type Session struct {
	server *Server
	tenant Tenant

	gate    gate          // calls under way
	opening gate          // attempts to open what follows
	limiter *rate.Limiter // nil for none
	held    atomic.Int64
	notes   notes

	conn     *lazy[*nats.Conn]   // for the buckets
	messages *lazy[*nats.Conn]   // for messaging
	own      []*lazy[*nats.Conn] // those of this session alone
	keys     *lazy[jetstream.KeyValue]
	objects  *lazy[*objects]
	http     func() *http.Transport
	closing  sync.Once
}

// call is one call that a session works on.
type call struct {
	guest.HostCall
	*Session
	holds int64 // bytes of the session's held
}

func newSession(s *Server, t Tenant, a Access) *Session {
	session := &Session{server: s, tenant: t}
	session.gate.limit = s.cfg.MaxConcurrency
	if r := s.cfg.RatePerSecond; r > 0 {
		session.limiter = rate.NewLimiter(rate.Limit(r), int(math.Ceil(min(r, 1e6))))
	}
	session.conn = session.connection(a.NATS, s.conn)
	session.messages = session.connection(a.Messaging, session.conn)
	session.keys = &lazy[jetstream.KeyValue]{gate: &session.opening, open: session.openKeys}
	session.objects = &lazy[*objects]{gate: &session.opening, open: session.openObjects}
	session.http = sync.OnceValue(s.egress.transport)
	return session
}

// connection is one that is made with access when it is first needed, or the
// usual one without.
func (s *Session) connection(access *nex.NATSAccess, usual *lazy[*nats.Conn]) *lazy[*nats.Conn] {
	if access == nil {
		return usual
	}
	own := *access
	c := &lazy[*nats.Conn]{gate: &s.opening, open: func(ctx context.Context) (*nats.Conn, error) { return connect(ctx, own) }}
	s.own = append(s.own, c)
	return c
}

// Serve does what a call asks. It ends with ctx, and when the session is
// closed. Every error is a [nex.Error] with one of the codes that
// docs/host-services.md lists.
func (s *Session) Serve(ctx context.Context, asked guest.HostCall) (guest.Message, error) {
	methods, ok := s.server.services[asked.Service]
	if !ok {
		return guest.Message{}, noService(asked.Service)
	}
	do, ok := methods[asked.Method]
	if !ok {
		return guest.Message{}, noMethod(asked.Service, asked.Method)
	}
	answer, err := s.serve(ctx, do, asked)
	if err != nil {
		refused := failure(ctx, err)
		s.note(asked, refused)
		return guest.Message{}, refused
	}
	return answer, nil
}

func (s *Session) serve(ctx context.Context, do method, asked guest.HostCall) (guest.Message, error) {
	if s.limiter != nil && !s.limiter.Allow() {
		return guest.Message{}, nex.Errorf(nex.Overloaded, "more than %g calls of this workload came in a second", s.server.cfg.RatePerSecond)
	}
	ctx, leave, err := s.gate.enter(ctx)
	if err != nil {
		return guest.Message{}, err
	}
	defer leave()
	if _, ok := ctx.Deadline(); !ok {
		longest := longestCall
		if asked.Timeout > 0 {
			longest = min(longest, asked.Timeout)
		}
		bounded, cancel := context.WithTimeout(ctx, longest)
		defer cancel()
		ctx = bounded
	}
	c := &call{HostCall: asked, Session: s}
	defer func() { s.held.Add(-c.holds) }()
	answer, err := do(ctx, c)
	if err != nil && errors.Is(context.Cause(ctx), errStopped) {
		return guest.Message{}, errStopped
	}
	return answer, err
}

// hold takes memory for n more bytes of the answer.
func (c *call) hold(n int) error {
	if c.held.Add(int64(n)) > maxHeld {
		c.held.Add(-int64(n))
		return nex.Errorf(nex.Overloaded, "the answers this workload waits for take more than %d bytes together", maxHeld)
	}
	c.holds += int64(n)
	return nil
}

// letGo gives back what hold took.
func (c *call) letGo(n int) {
	c.held.Add(-int64(n))
	c.holds -= int64(n)
}

// connected returns a connection of the session, connected.
func connected(ctx context.Context, conn *lazy[*nats.Conn]) (*nats.Conn, error) {
	nc, err := conn.get(ctx)
	if err == nil && nc.IsClosed() {
		conn.drop(nc)
		nc, err = conn.get(ctx)
	}
	if err != nil {
		return nil, err
	}
	if !nc.IsConnected() {
		return nil, nex.Errorf(nex.Unavailable, "NATS cannot be reached now")
	}
	return nc, nil
}

// Close ends calls under way, waits for them and ends what the session has of
// its own. Further calls are refused.
func (s *Session) Close() {
	s.closing.Do(func() {
		s.gate.close()
		s.opening.close()
		s.http().CloseIdleConnections()
		for _, conn := range s.own {
			if nc, ok := conn.opened(); ok {
				disconnect(nc)
			}
		}
	})
}
