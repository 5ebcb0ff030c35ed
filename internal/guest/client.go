package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"nex"
)

// Sink takes what one workload says unasked. Its functions but Host run on the
// link's reader: they must return soon and must not call the Client.
type Sink struct {
	Log    func(level slog.Level, text string)
	Exited func(Exit) // at most once; nil for functions, which do not exit
	// Limited tells that a service met a limit. Guests do not call it: it is
	// for whoever has the machine. May be nil.
	Limited func(Incident)
	// Lost tells, at most once and before [Client.Done] is closed, that the
	// guest was lost, and whose fault that may be. It is not called when the
	// node itself ended the link. May be nil.
	Lost func(Fault)
	// Host answers what the workload's code asks of host services, on a
	// goroutine of its own; ctx ends when the answer is not wanted any more.
	// Nil if there are none.
	Host func(ctx context.Context, c HostCall) (Message, error)
}

// An agent may know a little longer of workloads that it had, but not go on about
// others: so often a second in the long run, and at once.
const (
	strangersPerSecond = 1000
	strangersAtOnce    = 20_000
	hostCallWeight     = 20 // how many notices a call of a host service counts as
)

// errStrangers ends the link to an agent that does.
var errStrangers = errors.New("the agent goes on about workloads that it does not have")

// Client is the node's end of a link whose agent has said hello.
type Client struct {
	link  *link
	hello Hello

	mu    sync.Mutex
	sinks map[string]Sink // by workload id

	strangers *rate.Limiter // of what is said of other ids
}

// Greet takes the node's end of a new link, waits for the agent's hello and
// returns a Client that is ready for calls. It owns conn from then on, and
// closes it on error.
func Greet(ctx context.Context, conn net.Conn) (*Client, error) {
	c := &Client{sinks: map[string]Sink{}, strangers: rate.NewLimiter(strangersPerSecond, strangersAtOnce)}
	c.link = newLink(conn, c.serve, c.notice)
	c.link.guarded = true
	c.link.blame = c.blame
	// Closing ends every wait; a deadline does not end one for pipes that has begun.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	hello, err := readHello(c.link)
	if !stop() { // it is closed, or about to be
		_ = conn.Close()
		return nil, fmt.Errorf("wait for the agent's hello: %w", ctx.Err())
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c.hello = hello
	c.link.start()
	return c, nil
}

func readHello(l *link) (Hello, error) {
	f, err := readFrame(l.r)
	if errors.Is(err, io.EOF) {
		return Hello{}, errors.New("the agent ended before it said hello")
	}
	if err != nil {
		return Hello{}, fmt.Errorf("read the agent's hello: %w", err)
	}
	var h Hello
	if f.kind != kindHello || f.more || json.Unmarshal(f.body, &h) != nil {
		return Hello{}, fmt.Errorf("%w: the agent did not begin with a hello", errFrame)
	}
	if h.Protocol != Protocol {
		return Hello{}, fmt.Errorf("agent %.40q speaks link protocol %d, this node %d: install nex and nex-agent of one version", h.Version, h.Protocol, Protocol)
	}
	return h, nil
}

// Hello is what the agent said of itself.
func (c *Client) Hello() Hello { return c.hello }

// Deploy sends the artifact and has the agent load the workload. When it
// returns nil the workload takes triggers, or runs if it is a service. The
// sink may be called before Deploy returns.
func (c *Client) Deploy(ctx context.Context, d Deploy, artifact io.Reader, sink Sink) error {
	c.mu.Lock()
	c.sinks[d.ID] = sink
	c.mu.Unlock()
	err := c.deploy(ctx, d, artifact)
	if err != nil {
		c.forget(d.ID)
	}
	return err
}

func (c *Client) deploy(ctx context.Context, d Deploy, artifact io.Reader) error {
	head := encodePut(d.ID)
	for {
		// The answer to a piece may overtake the end of its writing, so the
		// next one needs a buffer of its own.
		piece := make([]byte, maxFrame-len(head))
		n, err := io.ReadFull(artifact, piece)
		if n > 0 {
			if _, err := c.link.call(ctx, "", head, piece[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read artifact: %w", err)
		}
	}
	body, err := encodeJSON(byte(methodDeploy), d)
	if err != nil {
		return err
	}
	_, err = c.link.call(ctx, d.ID, body, nil)
	return err
}

// Undeploy ends a workload; services are really gone when it returns nil.
func (c *Client) Undeploy(ctx context.Context, id string) error {
	defer c.forget(id)
	_, err := c.link.call(ctx, id, []byte{byte(methodUndeploy)}, []byte(id))
	return err
}

// Ping tells the agent what time it is and asks it for a sign of life, and ends
// the link if there is none within that time. A node that was itself stopped meanwhile learns nothing.
func (c *Client) Ping(within time.Duration) {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if _, err := c.link.call(ctx, "", encodePing(begin), nil); errors.Is(err, context.DeadlineExceeded) && time.Since(begin) < within+absent {
		c.link.fail(errHung)
	}
}

// Probe asks a service on the network of its machine. The error says why it does
// not answer; the agent gives up by itself after p.TimeoutMS, so ctx should have
// a little longer.
func (c *Client) Probe(ctx context.Context, p Probe) error {
	body, err := encodeJSON(byte(methodProbe), p)
	if err != nil {
		return err
	}
	_, err = c.link.call(ctx, p.ID, body, nil)
	return err
}

func (c *Client) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sinks, id)
}

// Invoke runs a function once. It waits for nothing: done gets the answer,
// once, or why there is none: [ErrNotSent] if the function did not run, and
// context.DeadlineExceeded when due came before an answer. It may be called
// before Invoke returns, on a goroutine that must not be held up. With hurry the
// call leaves at once; without, it may leave together with those that follow.
//
// The agent stops the function after t.Timeout, so due should be a little
// later; an agent that does not react to either loses its link, so that no
// runaway goes on.
func (c *Client) Invoke(t Trigger, due time.Time, hurry bool, done func(Result, error)) {
	start := time.Now()
	head := encodeTrigger(t)
	if err := fits(head, t.Payload); err != nil {
		done(Result{}, err)
		return
	}
	how := soon
	if hurry {
		how = atOnce
	}
	c.link.begin(t.ID, head, t.Payload, due, how, func(o outcome) {
		if o.err != nil {
			done(Result{}, o.err)
			return
		}
		r, err := decodeResult(o.data)
		if err != nil {
			c.link.fail(err, t.ID)
			done(Result{}, nex.Errorf(nex.Unavailable, textLost))
			return
		}
		r.Elapsed = min(r.Elapsed, time.Since(start)) // whatever the guest says
		done(r, nil)
	})
}

// Done is closed when the link has ended, by whichever end.
func (c *Client) Done() <-chan struct{} { return c.link.done }

// Err tells why the link ended, nil while it has not.
func (c *Client) Err() error { return c.link.cause() }

// Close ends the link and waits for everything it started.
func (c *Client) Close() { c.link.close() }

// longestHostCall bounds what an agent may say of how long it waits.
const longestHostCall = 15 * time.Minute

func lateHost(service string) error {
	return nex.Errorf(nex.Timeout, "host service %.40s did not answer in time", service)
}

// serve answers the agent's calls, all of which are for host services.
func (c *Client) serve(ctx *serving, m method, body []byte) (head, reply []byte, err error) {
	if m != methodHost {
		return nil, nil, nex.Errorf(nex.Unsupported, "a node has no method %d", m)
	}
	call, err := decodeHostCall(body)
	if err != nil {
		return nil, nil, err
	}
	sink, ok := c.sink(call.ID)
	if !ok {
		if err := c.stranger(hostCallWeight); err != nil {
			c.link.fail(err)
		}
	}
	if sink.Host == nil {
		return nil, nil, nex.Errorf(nex.Unsupported, "No such host service: %.40s", call.Service)
	}
	call.Timeout = min(call.Timeout, longestHostCall)
	c.link.expire(ctx, ctx.began.Add(call.Timeout))
	answer, err := sink.Host(ctx, call)
	if err != nil && ctx.Err() != nil {
		err = lateHost(call.Service)
	}
	if err != nil {
		return nil, nil, err
	}
	head, reply = encodeMessage(answer)
	if fits(head, reply) != nil {
		return nil, nil, nex.Errorf(nex.TooLarge, "answer of %d bytes is over the limit of %d", len(head)+len(reply), MaxMessage)
	}
	return head, reply, nil
}

func (c *Client) notice(body []byte) error {
	if len(body) == 0 {
		return fmt.Errorf("%w: empty notice", errMessage)
	}
	switch body[0] {
	case topicLog:
		id, level, text, err := decodeLog(body[1:])
		if err != nil {
			return err
		}
		sink, ok := c.sink(id)
		if !ok {
			return c.stranger(1)
		}
		sink.Log(level, text)
		return nil
	case topicExit:
		var n exitNotice
		if err := json.Unmarshal(body[1:], &n); err != nil {
			return fmt.Errorf("%w: %v", errMessage, err)
		}
		sink, ok := c.sink(n.ID)
		if !ok {
			return c.stranger(1)
		}
		if sink.Exited == nil {
			return fmt.Errorf("%w: a function does not exit", errMessage)
		}
		c.forget(n.ID)
		if n.Cause != nex.CauseDisk { // an agent knows of no other
			n.Cause = ""
		}
		sink.Exited(n.Exit)
		return nil
	case topicRunaway:
		id := string(body[1:])
		if _, ok := c.sink(id); !ok {
			return c.stranger(1)
		}
		c.link.fail(errRunaway, id)
		return errRunaway
	}
	return fmt.Errorf("%w: notice of topic %d", errMessage, body[0])
}

// stranger counts what a guest says of an id that is not deployed on it, which
// is dropped. It may be late, but not without end.
func (c *Client) stranger(weight int) error {
	if !c.strangers.AllowN(time.Now(), weight) {
		return errStrangers
	}
	return nil
}

// sink finds who listens to a workload.
func (c *Client) sink(id string) (Sink, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.sinks[id]
	return s, ok
}
