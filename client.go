package nex

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Waiting times of a [Client] whose caller's context has no deadline.
const (
	requestTimeout = 5 * time.Second
	deployTimeout  = 60 * time.Second // an artifact is fetched, a machine boots
	stopTimeout    = 30 * time.Second // services have a grace
	gatherTimeout  = 2 * time.Second
	// quiet ends a gathering: nobody has answered for this long since the
	// last answer. It is a tenth of the time the caller has, within bounds.
	quiet     = 150 * time.Millisecond
	mostQuiet = time.Second
	// mostReplies is how many replies may wait to be read; more are lost.
	mostReplies = 4096
)

// Client talks to nodes over NATS on behalf of one namespace. Safe for
// concurrent use; it does not own the connection.
type Client struct {
	nc        *nats.Conn
	namespace string
}

// NewClient makes a client for a namespace; "" means [DefaultNamespace].
func NewClient(nc *nats.Conn, namespace string) (*Client, error) {
	if namespace == "" {
		namespace = DefaultNamespace
	}
	if !ValidToken(namespace) {
		return nil, Errorf(Invalid, "namespace %q must be one subject token without dots, spaces or wildcards", namespace)
	}
	return &Client{nc: nc, namespace: namespace}, nil
}

// Namespace is the namespace the client works in.
func (c *Client) Namespace() string { return c.namespace }

// Deploy asks a node to run a workload. It returns once the workload answers
// its triggers, or is running if it is a service, or an [Error].
func (c *Client) Deploy(ctx context.Context, node string, r DeployRequest) (DeployReply, error) {
	ctx, cancel := withTimeout(ctx, deployTimeout)
	defer cancel()
	return ask[DeployReply](ctx, c.nc, DeploySubject(c.namespace, node), r)
}

// Stop asks a node to end a workload and returns when it is gone.
func (c *Client) Stop(ctx context.Context, node string, r StopRequest) (StopReply, error) {
	ctx, cancel := withTimeout(ctx, stopTimeout)
	defer cancel()
	return ask[StopReply](ctx, c.nc, StopSubject(c.namespace, node), r)
}

// Info asks a node about itself and its workloads in the client's namespace.
func (c *Client) Info(ctx context.Context, node string) (InfoReply, error) {
	return ask[InfoReply](ctx, c.nc, InfoSubject(c.namespace, node), nil)
}

// LameDuck tells a node to take no new work. Only nodes with administrators
// need a signed request; others take an empty one.
func (c *Client) LameDuck(ctx context.Context, node string, r LameDuckRequest) (LameDuckReply, error) {
	if r == (LameDuckRequest{}) {
		return ask[LameDuckReply](ctx, c.nc, LameDuckSubject(node), nil)
	}
	return ask[LameDuckReply](ctx, c.nc, LameDuckSubject(node), r)
}

// Ping asks one node who it is.
func (c *Client) Ping(ctx context.Context, node string) (NodeInfo, error) {
	return ask[NodeInfo](ctx, c.nc, NodePingSubject(node), nil)
}

// NodeFilter says which nodes a caller wants to hear of; the zero value is for
// all of them.
type NodeFilter struct {
	Nexus string            // name of the cluster
	Tags  map[string]string // each with this value, in any case
	Count int               // no more than this many, if it is above 0
}

// Nodes yields the nodes that answer a ping, until there are as many as f asks
// for, nobody has answered for a while, or ctx ends.
func (c *Client) Nodes(ctx context.Context, f NodeFilter) iter.Seq2[NodeInfo, error] {
	return func(yield func(NodeInfo, error) bool) {
		found := 0
		for n, err := range gather[NodeInfo](ctx, c.nc, PingSubject, nil) {
			if err == nil && !f.matches(n) {
				continue
			}
			if !yield(n, err) {
				return
			}
			if err == nil {
				found++
			}
			if f.Count > 0 && found == f.Count {
				return
			}
		}
	}
}

func (f NodeFilter) matches(n NodeInfo) bool {
	for key, want := range f.Tags {
		if got, ok := n.Tags[key]; !ok || !strings.EqualFold(got, want) {
			return false
		}
	}
	return f.Nexus == "" || f.Nexus == n.Nexus
}

// Auction yields the nodes that would run what r describes, and with
// r.Explain those too that would not. Like all that is asked of every node, it
// ends when nobody has answered for a while.
func (c *Client) Auction(ctx context.Context, r AuctionRequest) iter.Seq2[Bid, error] {
	return gather[Bid](ctx, c.nc, AuctionSubject, r)
}

// Workloads yields the nodes that run workloads in the client's namespace,
// only those with this id or name unless it is "".
func (c *Client) Workloads(ctx context.Context, idOrName string) iter.Seq2[NodeWorkloads, error] {
	subject := WorkloadPingSubject + "." + c.namespace
	if idOrName != "" {
		subject += "." + idOrName
	}
	return gather[NodeWorkloads](ctx, c.nc, subject, nil)
}

// Events yields the events of a namespace and type, either "*" for all, until
// ctx ends. Messages that are no events yield an error and the stream goes on.
func (c *Client) Events(ctx context.Context, namespace, eventType string) iter.Seq2[Event, error] {
	return stream(ctx, c.nc, EventSubject(namespace, eventType), ParseEvent)
}

// Logs yields the log records of the client's namespace until ctx ends.
// Fields of f that are not "" must match. Records of Nex 0.2.7 nodes are
// understood too.
func (c *Client) Logs(ctx context.Context, f LogSubject) iter.Seq2[Log, error] {
	s := LogSubject{Namespace: c.namespace, Node: f.Node, Workload: "*", ID: "*"}
	if s.Node == "" {
		s.Node = "*"
	}
	return func(yield func(Log, error) bool) {
		for l, err := range stream(ctx, c.nc, s.String(), ParseLog) {
			if err == nil && (f.Workload != "" && f.Workload != l.Workload || f.ID != "" && f.ID != l.ID) {
				continue
			}
			l.Time = time.Now()
			if !yield(l, err) {
				return
			}
		}
	}
}

// ask sends one request and decodes the data of its one reply.
func ask[Reply any](ctx context.Context, nc *nats.Conn, subject string, body any) (Reply, error) {
	var reply Reply
	ctx, cancel := withTimeout(ctx, requestTimeout)
	defer cancel()
	data, err := encode(body)
	if err != nil {
		return reply, err
	}
	m, err := nc.RequestWithContext(ctx, subject, data)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return reply, Errorf(NoSuchNode, "no such node: nobody listens on %s (nex node ls shows the nodes)", subject)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return reply, Errorf(Timeout, "no reply on %s in time", subject)
	case err != nil:
		return reply, fmt.Errorf("request %s: %w", subject, err)
	}
	return decode[Reply](m.Data)
}

func decode[Reply any](data []byte) (Reply, error) {
	var reply Reply
	var e Envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return reply, fmt.Errorf("decode reply: %w", err)
	}
	if e.Error != "" {
		code := e.Code
		if code == "" {
			code = codeOfText(e.Error)
		}
		return reply, &Error{Code: code, Message: e.Error}
	}
	if err := json.Unmarshal(e.Data, &reply); err != nil {
		return reply, fmt.Errorf("decode reply data: %w", err)
	}
	return reply, nil
}

func encode(body any) ([]byte, error) {
	if body == nil {
		return nil, nil
	}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	return data, nil
}

// gather sends one request and yields the data of every reply, until nobody
// has answered for the quiet period or ctx's deadline has passed, which is no
// error: hearing nobody is an answer too.
//
// Where nodes may keep silent, a ping goes with the request. Every node answers
// that, so that the quiet period begins even if there is nothing to say.
func gather[Reply any](ctx context.Context, nc *nats.Conn, subject string, body any) iter.Seq2[Reply, error] {
	return func(yield func(Reply, error) bool) {
		ctx, cancel := withTimeout(ctx, gatherTimeout)
		defer cancel()
		inbox, replies := nc.NewInbox(), make(chan *nats.Msg, mostReplies)
		sub, err := askAll(nc, inbox, replies, subject, body)
		if err != nil {
			yield(*new(Reply), err)
			return
		}
		defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
		var silence <-chan time.Time
		patience := max(quiet, min(timeLeft(ctx)/10, mostQuiet))
		for {
			select {
			case m, open := <-replies:
				ours := open && m.Subject == inbox+answers
				if !open || ours && noResponders(m) {
					return
				}
				if ours && len(m.Data) > 0 && !yield(decode[Reply](m.Data)) {
					return
				}
				silence = time.After(patience)
			case <-silence:
				return
			case <-ctx.Done():
				if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
					yield(*new(Reply), fmt.Errorf("wait for replies on %s: %w", subject, ctx.Err()))
				}
				return
			}
		}
	}
}

// Ends of the subjects that replies to a gathering come to.
const (
	answers  = ".answers"
	presence = ".presence"
)

// askAll publishes a request to all nodes and returns the subscription to their
// replies.
func askAll(nc *nats.Conn, inbox string, replies chan *nats.Msg, subject string, body any) (*nats.Subscription, error) {
	data, err := encode(body)
	if err != nil {
		return nil, err
	}
	sub, err := nc.ChanSubscribe(inbox+".*", replies)
	if err != nil {
		return nil, fmt.Errorf("subscribe for replies: %w", err)
	}
	err = nc.PublishRequest(subject, inbox+answers, data)
	if err == nil && subject != PingSubject {
		err = nc.PublishRequest(PingSubject, inbox+presence, nil)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("publish on %s: %w", subject, err), sub.Unsubscribe())
	}
	return sub, nil
}

func noResponders(m *nats.Msg) bool {
	return len(m.Data) == 0 && m.Header.Get("Status") == "503"
}

// stream yields what parse makes of every message on subject until ctx ends.
func stream[T any](ctx context.Context, nc *nats.Conn, subject string, parse func(string, []byte) (T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		sub, err := nc.SubscribeSync(subject)
		if err != nil {
			yield(none, fmt.Errorf("subscribe to %s: %w", subject, err))
			return
		}
		defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
		for {
			m, err := sub.NextMsgWithContext(ctx)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				if !yield(none, fmt.Errorf("receive from %s: %w", subject, err)) || !errors.Is(err, nats.ErrSlowConsumer) {
					return
				}
				continue
			}
			if !yield(parse(m.Subject, m.Data)) {
				return
			}
		}
	}
}

func timeLeft(ctx context.Context) time.Duration {
	end, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return time.Until(end)
}

func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}
