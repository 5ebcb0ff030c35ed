package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"time"

	"nex"
)

// Handler is what an agent does when its node calls. Methods run on their own
// goroutine each; ctx ends when the node gives up the call or the link is
// lost.
type Handler interface {
	// Put appends a piece to the artifact of a workload to come.
	Put(ctx context.Context, id string, piece []byte) error
	Deploy(ctx context.Context, d Deploy) error
	// Invoke runs a function; ctx carries the call's deadline. How long it took is
	// measured by the Server.
	Invoke(ctx context.Context, t Trigger) (Result, error)
	Undeploy(ctx context.Context, id string) error
	// Probe reports why a service does not answer, nil if it does.
	Probe(ctx context.Context, p Probe) error
}

// Server is the agent's end of a link.
type Server struct {
	link    *link
	handler Handler
	// Clock, if it is set before [Server.Run], hears what time it is at the node
	// with every ping, on a goroutine of its own each.
	Clock func(time.Time)
}

// NewServer takes the agent's end of a new link; it owns conn. Nothing
// happens on the link before [Server.Run].
func NewServer(conn net.Conn, h Handler) *Server {
	s := &Server{handler: h}
	s.link = newLink(conn, s.serve, nil)
	return s
}

// Run says hello and serves the node until the link or ctx ends, then waits
// for the calls being served. It returns nil if the node or ctx ended it.
func (s *Server) Run(ctx context.Context, hello Hello) error {
	hello.Protocol = Protocol
	body, err := json.Marshal(hello)
	if err != nil {
		return fmt.Errorf("encode hello: %w", err)
	}
	s.link.outbox.add(frame{kind: kindHello, body: body}, atOnce)
	s.link.start()
	select {
	case <-s.link.done:
	case <-ctx.Done():
	}
	s.link.close()
	if err := s.link.cause(); !errors.Is(err, ErrClosed) && !errors.Is(err, errEnded) {
		return err
	}
	return nil
}

// Log passes on what a workload printed. It blocks while the link is full and
// is silent when the link has ended.
func (s *Server) Log(id string, level slog.Level, text string) {
	_ = s.link.send(context.Background(), kindNotice, 0, encodeLog(id, level, text), nil, soon) // fails only when the link ends
}

// Exited tells that a service ended by itself.
func (s *Server) Exited(id string, e Exit) error {
	body, err := encodeJSON(topicExit, exitNotice{ID: id, Exit: e})
	if err != nil {
		return err
	}
	return s.link.send(context.Background(), kindNotice, 0, body, nil, soon)
}

// GiveUp tells the node that this agent has to end because the code of a
// workload does not stop, and returns when the node has ended the link or ctx
// ends. The agent should be no more soon after.
func (s *Server) GiveUp(ctx context.Context, id string) {
	s.link.outbox.add(frame{kind: kindNotice, body: append([]byte{topicRunaway}, id...)}, soon)
	select {
	case <-s.link.done:
	case <-ctx.Done():
	}
}

// Host asks the node for what a workload's code wants of a host service, and
// waits for the answer until ctx ends or the call's Timeout is over. Its errors
// have codes. With a context that comes from [Handler.Invoke] it must be called
// by the goroutine of that, which may be the link's reader and then reads on.
func (s *Server) Host(ctx context.Context, c HostCall) (Message, error) {
	if len(c.Args) > maxArgs {
		return Message{}, nex.Errorf(nex.Invalid, "a host call has at most %d arguments, not %d", maxArgs, len(c.Args))
	}
	if due, ok := ctx.Deadline(); !ok || time.Until(due) > c.Timeout {
		bounded, cancel := context.WithTimeout(ctx, c.Timeout)
		defer cancel()
		ctx = bounded
	}
	if n := countHeaders(c.Header); n > maxHeaders {
		return Message{}, nex.Errorf(nex.Invalid, "a message has at most %d headers, not %d", maxHeaders, n)
	}
	head := encodeHostCall(c)
	if n := len(head) + len(c.Payload); n > MaxMessage {
		return Message{}, nex.Errorf(nex.TooLarge, "%d bytes are over the limit of %d", n, MaxMessage)
	}
	data, err := s.ask(ctx, head, c.Payload)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Message{}, lateHost(c.Service)
	}
	if err != nil {
		return Message{}, err
	}
	return decodeMessage(data)
}

func (s *Server) ask(ctx context.Context, head, body []byte) ([]byte, error) {
	call, _ := ctx.Value(servingKey{}).(*serving)
	if call == nil {
		return s.link.call(ctx, "", head, body)
	}
	begin := time.Now()
	defer func() {
		call.waits++
		now := time.Now()
		call.waited += now.Sub(begin)
		if now.Sub(call.yielded) > 4*time.Millisecond {
			call.yielded = now
			runtime.Gosched()
		}
	}()
	if data, err, done := s.link.callInTurn(ctx, call, head, body); done {
		return data, err
	}
	return s.link.call(ctx, "", head, body)
}

func (s *Server) serve(ctx *serving, m method, body []byte) (head, reply []byte, err error) {
	switch m {
	case methodPut:
		id, piece, err := decodePut(body)
		if err != nil {
			return nil, nil, err
		}
		return nil, nil, s.handler.Put(ctx, id, piece)
	case methodDeploy:
		var d Deploy
		if err := json.Unmarshal(body, &d); err != nil {
			return nil, nil, fmt.Errorf("%w: %v", errMessage, err)
		}
		return nil, nil, s.handler.Deploy(ctx, d)
	case methodInvoke:
		t, err := decodeTrigger(body)
		if err != nil {
			return nil, nil, err
		}
		s.link.expire(ctx, ctx.began.Add(t.Timeout))
		r, err := s.handler.Invoke(ctx, t)
		if err != nil {
			return nil, nil, err
		}
		r.Elapsed = time.Since(ctx.began)
		if n := countHeaders(r.Header); n > maxHeaders {
			return nil, nil, nex.Errorf(nex.BadReply, "a reply has at most %d headers, not %d", maxHeaders, n)
		}
		head, reply = encodeResult(r)
		if fits(head, reply) != nil {
			return nil, nil, nex.Errorf(nex.BadReply, "reply of %d bytes is over the limit of %d", len(head)+len(reply), MaxMessage)
		}
		return head, reply, nil
	case methodUndeploy:
		return nil, nil, s.handler.Undeploy(ctx, string(body))
	case methodPing:
		if now, ok := decodePing(body); ok && s.Clock != nil {
			s.Clock(now)
		}
		return nil, nil, nil
	case methodProbe:
		var p Probe
		if err := json.Unmarshal(body, &p); err != nil {
			return nil, nil, fmt.Errorf("%w: %v", errMessage, err)
		}
		return nil, nil, s.handler.Probe(ctx, p)
	}
	return nil, nil, nex.Errorf(nex.Unsupported, "this agent has no method %d", m)
}
