// Package control serves the control API: a message on a control subject is
// decoded, given to the [Backend] or the [Directory], and answered exactly
// once. It holds no policy and no state of the node.
//
// Every message is taken as hostile: whatever it holds, the worst that happens
// is an error reply. Deploys and stops run beside each other, so that a slow
// one holds up nobody.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
)

const (
	// requestTimeout bounds the work on one request.
	requestTimeout = 2 * time.Minute
	// maxRequests is how many deploys and stops may be worked on at once;
	// what comes beyond is refused.
	maxRequests = 256
	// drainTimeout bounds how long messages under way are waited for at the
	// end.
	drainTimeout = 2 * time.Second
	// maxText is how many bytes of an error's text are sent. Some quote the
	// request.
	maxText = 4 << 10
)

// Backend changes or describes a node. Errors become error replies: their
// text, and the code of a [nex.Error] among them.
type Backend interface {
	Deploy(ctx context.Context, namespace string, r nex.DeployRequest) (nex.DeployReply, error)
	Stop(ctx context.Context, namespace string, r nex.StopRequest) (nex.StopReply, error)
	Info(ctx context.Context, namespace string) (nex.InfoReply, error)
	LameDuck(ctx context.Context, r nex.LameDuckRequest) (nex.LameDuckReply, error)
}

// Directory answers questions put to all nodes; false means silence.
type Directory interface {
	Ping() nex.NodeInfo
	Auction(r nex.AuctionRequest) (nex.Bid, bool)
	Workloads(namespace, idOrName string) (nex.NodeWorkloads, bool)
}

// Config is what a [Server] works with; all fields are required.
type Config struct {
	Conn      *nats.Conn
	NodeID    string
	Backend   Backend
	Directory Directory
	Log       *slog.Logger
}

// Server listens on a node's control subjects.
type Server struct {
	cfg    Config
	ctx    func() (context.Context, context.CancelFunc) // of one request
	cancel context.CancelFunc

	subs []*nats.Subscription
	once sync.Once // of Close

	mu       sync.Mutex
	requests sync.WaitGroup
	working  int  // slow requests
	closed   bool // no more slow requests
	ended    bool // no more requests
}

// Listen subscribes to the control subjects of a node.
func Listen(cfg Config) (*Server, error) {
	all, cancel := context.WithCancel(context.Background())
	s := &Server{cfg: cfg, cancel: cancel}
	s.ctx = func() (context.Context, context.CancelFunc) { return context.WithTimeout(all, requestTimeout) }
	for _, r := range s.routes(cfg.NodeID) {
		sub, err := cfg.Conn.Subscribe(r.subject, func(m *nats.Msg) { s.take(r, m) })
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("listen on %s: %w", r.subject, err)
		}
		s.subs = append(s.subs, sub)
	}
	return s, nil
}

// errClosed answers requests that come while the server closes.
var errClosed = nex.Errorf(nex.Unavailable, "node is shutting down")

// Close stops listening, ends the contexts of the requests being worked on,
// answers what was received, and waits for all of it. Idempotent.
func (s *Server) Close() {
	s.once.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.cancel()
		s.drain()
		s.mu.Lock()
		s.ended = true
		s.mu.Unlock()
		s.requests.Wait()
	})
}

// drain ends the subscriptions after the messages that were received.
func (s *Server) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	connected := s.cfg.Conn.IsConnected()
	drained := make([]chan struct{}, len(s.subs))
	for i, sub := range s.subs {
		drained[i] = make(chan struct{})
		sub.SetClosedHandler(func(string) { close(drained[i]) })
		if connected {
			_ = sub.Drain() // fails only when the connection is closed
		} else {
			_ = sub.Unsubscribe() // likewise
		}
	}
	for i, sub := range s.subs {
		select {
		case <-drained[i]:
		case <-ctx.Done():
			_ = sub.Unsubscribe() // likewise
		}
	}
}

// route is one subject and who answers it. A nil answer without an error is
// silence.
type route struct {
	subject, replyType string
	answer             func(context.Context, *nats.Msg) (any, error)
	slow               bool // it may take its time, on a goroutine of its own
}

// routes are all subjects that the node with an id listens on.
func (s *Server) routes(id string) []route {
	b, d := s.cfg.Backend, s.cfg.Directory
	ping := func(context.Context, *nats.Msg) (any, error) { return d.Ping(), nil }
	return []route{
		{subject: nex.PingSubject, replyType: nex.PingReplyType, answer: ping},
		{subject: nex.NodePingSubject(id), replyType: nex.PingReplyType, answer: ping},
		{subject: nex.WorkloadPingSubject + ".>", replyType: nex.PingReplyType, answer: s.workloads},
		{subject: nex.AuctionSubject, replyType: nex.AuctionReplyType, answer: s.auction},
		{subject: nex.InfoSubject("*", id), replyType: nex.InfoReplyType, answer: func(ctx context.Context, m *nats.Msg) (any, error) {
			return b.Info(ctx, namespace(m.Subject))
		}},
		{subject: nex.LameDuckSubject(id), replyType: nex.LameDuckReplyType, answer: s.lameDuck},
		{subject: nex.DeploySubject("*", id), replyType: nex.DeployReplyType, answer: decoded("deploy", b.Deploy), slow: true},
		{subject: nex.StopSubject("*", id), replyType: nex.StopReplyType, answer: decoded("stop", b.Stop), slow: true},
	}
}

// take answers a message: at once, or on a goroutine of its own if that may
// take long and not too many do.
func (s *Server) take(r route, m *nats.Msg) {
	counted, err := s.begin(r)
	switch {
	case err != nil:
		s.reply(m, r.replyType, nil, err)
	case counted && r.slow:
		go func() {
			defer s.end(r)
			s.handle(r, m)
		}()
	case counted:
		defer s.end(r)
		s.handle(r, m)
	}
}

// begin counts a request, or says why it cannot be worked on. After the end
// nothing is counted nor said.
func (s *Server) begin(r route) (counted bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return false, nil
	case !r.slow:
	case s.closed:
		return false, errClosed
	case s.working >= maxRequests:
		return false, nex.Errorf(nex.Overloaded, "node is working on %d requests, try again later", maxRequests)
	default:
		s.working++
	}
	s.requests.Add(1)
	return true, nil
}

func (s *Server) end(r route) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.slow {
		s.working--
	}
	s.requests.Done()
}

// handle answers one message, whatever happens on the way.
func (s *Server) handle(r route, m *nats.Msg) {
	ctx, cancel := s.ctx()
	defer cancel()
	data, err := s.guarded(ctx, r, m)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) && nex.CodeOf(err) == nex.Internal {
		err = errClosed
	}
	if data == nil && err == nil {
		return
	}
	if err != nil && nex.CodeOf(err) == nex.Internal {
		s.cfg.Log.Error("Request failed", "subject", m.Subject, "error", err)
	}
	s.reply(m, r.replyType, data, err)
}

// guarded turns a panic into an error.
func (s *Server) guarded(ctx context.Context, r route, m *nats.Msg) (data any, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error("Panic in a request", "subject", m.Subject, "panic", p, "stack", string(debug.Stack()))
			data, err = nil, nex.Errorf(nex.Internal, "internal error")
		}
	}()
	return r.answer(ctx, m)
}

func (s *Server) reply(m *nats.Msg, replyType string, data any, err error) {
	if !nex.ValidReply(m.Reply) {
		return
	}
	body, merr := envelope(replyType, data, err)
	if limit := s.cfg.Conn.MaxPayload(); merr == nil && int64(len(body)) > limit {
		body, merr = envelope(replyType, nil, nex.Errorf(nex.Exhausted, "the reply of %d bytes is over the server's limit of %d", len(body), limit))
	}
	if merr == nil {
		merr = m.Respond(body)
	}
	if merr != nil {
		s.cfg.Log.Error("Reply could not be sent", "subject", m.Subject, "error", merr)
	}
}

// envelope wraps a reply; a failure has an empty string as its data, as Nex
// 0.2.7 sends it.
func envelope(replyType string, data any, err error) ([]byte, error) {
	e := nex.Envelope{Type: replyType}
	if err != nil {
		e.Error, e.Code = brief(err.Error()), nex.CodeOf(err)
		data = ""
	}
	raw, merr := json.Marshal(data)
	if merr != nil {
		return nil, merr
	}
	e.Data = raw
	return json.Marshal(e)
}

// brief cuts a text that is too long to send.
func brief(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "…"
}

// decoded makes a route's answer from a method of the backend.
func decoded[Req, Rep any](verb string, do func(context.Context, string, Req) (Rep, error)) func(context.Context, *nats.Msg) (any, error) {
	return func(ctx context.Context, m *nats.Msg) (any, error) {
		var r Req
		if err := json.Unmarshal(m.Data, &r); err != nil {
			return nil, nex.Errorf(nex.Invalid, "Unable to deserialize %s request: %v", verb, err)
		}
		return do(ctx, namespace(m.Subject), r)
	}
}

// namespace is the third token: $NEX.VERB.{namespace}.….
func namespace(subject string) string {
	tokens := strings.SplitN(subject, ".", 4)
	if len(tokens) < 3 {
		return ""
	}
	return tokens[2]
}

// auction answers if the node offers what is asked. A body that cannot be
// read asks for nothing in particular.
func (s *Server) auction(_ context.Context, m *nats.Msg) (any, error) {
	var r nex.AuctionRequest
	if json.Unmarshal(m.Data, &r) != nil {
		r = nex.AuctionRequest{}
	}
	if bid, ok := s.cfg.Directory.Auction(r); ok {
		return bid, nil
	}
	return nil, nil
}

// lameDuck takes any body, as Nex 0.2.7 does: one that cannot be read is a
// request without a signature.
func (s *Server) lameDuck(ctx context.Context, m *nats.Msg) (any, error) {
	var r nex.LameDuckRequest
	if json.Unmarshal(m.Data, &r) != nil {
		r = nex.LameDuckRequest{}
	}
	return s.cfg.Backend.LameDuck(ctx, r)
}

// workloads answers $NEX.WPING.{namespace}[.{id or name}] if anything matches.
func (s *Server) workloads(_ context.Context, m *nats.Msg) (any, error) {
	tokens := strings.Split(strings.TrimPrefix(m.Subject, nex.WorkloadPingSubject+"."), ".")
	idOrName := ""
	switch len(tokens) {
	case 1:
	case 2:
		idOrName = tokens[1]
	default:
		return nil, nil
	}
	if w, ok := s.cfg.Directory.Workloads(tokens[0], idOrName); ok {
		return w, nil
	}
	return nil, nil
}
