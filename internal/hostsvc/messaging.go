package hostsvc

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/guest"
)

const (
	// maxReplies is how many replies one requestMany collects at most.
	maxReplies = 10_000
	// longestTimeout bounds timeout_ms and quiet_ms.
	longestTimeout = 24 * time.Hour
)

// controlHeaders are the headers that NATS acts on and that workloads may send.
// The others are refused, those that are not known yet included: some have the
// server send to another subject (Nats-Trace-Dest, Nats-Schedule-Target), erase
// what a stream has (Nats-Rollup) or say whom a request is from
// (Nats-Request-Info).
var controlHeaders = []string{
	"nats-msg-id", "nats-ttl", "nats-service-error", "nats-service-error-code",
	"nats-expected-stream", "nats-expected-last-msg-id", "nats-expected-last-sequence", "nats-expected-last-subject-sequence",
}

// message checks and makes the message of a call.
func (c *call) message(ctx context.Context) (*nats.Conn, *nats.Msg, error) {
	subject := c.Args["subject"]
	if err := c.server.subjects.check(subject); err != nil {
		return nil, nil, err
	}
	for name, values := range c.Header {
		if err := checkHeader(name, values, isHeaderCharacter); err != nil {
			return nil, nil, err
		}
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "nats-") && !slices.Contains(controlHeaders, lower) {
			return nil, nil, nex.Errorf(nex.Denied, "the header %.64q is for NATS, which workloads do not command", name)
		}
	}
	nc, err := connected(ctx, c.messages)
	if err != nil {
		return nil, nil, err
	}
	if prefix := nc.Opts.InboxPrefix; prefix != "" && strings.HasPrefix(subject+".", strings.TrimSuffix(prefix, ".")+".") {
		return nil, nil, notForWorkloads(subject)
	}
	return nc, &nats.Msg{Subject: subject, Header: nats.Header(c.Header), Data: c.Payload}, nil
}

// isHeaderCharacter reports whether b may be in the name of a NATS header.
func isHeaderCharacter(b byte) bool { return b > ' ' && b < 0x7f && b != ':' }

// checkHeader refuses headers that would end early or begin others.
func checkHeader(name string, values []string, valid func(byte) bool) error {
	for i := range len(name) {
		if !valid(name[i]) {
			return nex.Errorf(nex.Invalid, "%.64q cannot be the name of a header", name)
		}
	}
	if name == "" {
		return nex.Errorf(nex.Invalid, "the name of a header is empty")
	}
	for _, v := range values {
		if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return nex.Errorf(nex.Invalid, "the header %.64q has control characters", name)
		}
	}
	return nil
}

// number reads an argument that is a whole number from 1 to most, 0 if it is not
// there.
func (c *call) number(name string, most int64) (int64, error) {
	text, ok := c.Args[name]
	if !ok || text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n > most {
		return 0, nex.Errorf(nex.Invalid, "%s is %.32q: want a whole number from 1 to %d", name, text, most)
	}
	return n, nil
}

// duration reads an argument that is a time in milliseconds.
func (c *call) duration(name string, otherwise time.Duration) (time.Duration, error) {
	n, err := c.number(name, longestTimeout.Milliseconds())
	if n == 0 {
		return otherwise, err
	}
	return time.Duration(n) * time.Millisecond, err
}

func publish(ctx context.Context, c *call) (guest.Message, error) {
	nc, m, err := c.message(ctx)
	if err != nil {
		return guest.Message{}, err
	}
	return guest.Message{}, nc.PublishMsg(m)
}

func request(ctx context.Context, c *call) (guest.Message, error) {
	timeout, err := c.duration("timeout_ms", c.server.cfg.Messaging.RequestTimeout)
	if err != nil {
		return guest.Message{}, err
	}
	nc, m, err := c.message(ctx)
	if err != nil {
		return guest.Message{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	reply, err := nc.RequestMsgWithContext(ctx, m)
	if err != nil {
		return guest.Message{}, nobody(err, m.Subject)
	}
	return guest.Message{Header: reply.Header, Payload: reply.Data}, nil
}

// nobody says where nobody answers, if that is the error.
func nobody(err error, subject string) error {
	if errors.Is(err, nats.ErrNoResponders) {
		return nex.Errorf(nex.Unavailable, "nobody answers on %.64q", subject)
	}
	return err
}

// bounds say when a requestMany has collected enough.
type bounds struct {
	count int           // replies, 0 if they are not counted
	quiet time.Duration // without another reply, 0 for no matter
	due   time.Time
}

func (c *call) bounds(ctx context.Context) (b bounds, err error) {
	timeout, err1 := c.duration("timeout_ms", c.server.cfg.Messaging.RequestManyTimeout)
	quiet, err2 := c.duration("quiet_ms", 0)
	count, err3 := c.number("count", maxReplies)
	now := time.Now()
	b = bounds{count: int(count), quiet: quiet, due: now.Add(timeout)}
	// What came must be with who asked before that one gives up.
	if last, ok := ctx.Deadline(); ok {
		left := last.Sub(now)
		if end := last.Add(-min(left/10, 100*time.Millisecond)); end.Before(b.due) {
			b.due = end
		}
	}
	return b, errors.Join(err1, err2, err3)
}

// requestMany collects replies. They are answered with their sizes before them.
func requestMany(ctx context.Context, c *call) (guest.Message, error) {
	bounds, err := c.bounds(ctx)
	if err != nil {
		return guest.Message{}, err
	}
	nc, m, err := c.message(ctx)
	if err != nil {
		return guest.Message{}, err
	}
	m.Reply = nc.NewInbox()
	replies, err := nc.SubscribeSync(m.Reply)
	if err != nil {
		return guest.Message{}, err
	}
	defer func() { _ = replies.Unsubscribe() }() // it fails if the connection has ended, and then there is nothing to end
	if err := replies.SetPendingLimits(maxReplies+1, maxAnswer); err != nil {
		return guest.Message{}, err
	}
	if err := nc.PublishMsg(m); err != nil {
		return guest.Message{}, err
	}
	payload, n, err := c.collect(ctx, replies, bounds)
	if err != nil {
		return guest.Message{}, nobody(err, m.Subject)
	}
	return guest.Message{Args: map[string]string{"count": strconv.Itoa(n)}, Payload: payload}, nil
}

func (c *call) collect(ctx context.Context, replies *nats.Subscription, b bounds) (payload []byte, n int, err error) {
	for b.count == 0 || n < b.count {
		due := b.due
		if quiet := time.Now().Add(b.quiet); b.quiet > 0 && n > 0 && quiet.Before(due) {
			due = quiet
		}
		m, err := next(ctx, replies, due)
		switch {
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			return payload, n, nil
		case errors.Is(err, nats.ErrSlowConsumer):
			return nil, 0, errManyReplies
		case err != nil:
			return nil, 0, err
		case len(payload)+4+len(m.Data) > maxAnswer || n == maxReplies:
			return nil, 0, errManyReplies
		}
		if err := c.hold(4 + len(m.Data)); err != nil {
			return nil, 0, err
		}
		payload = append(binary.BigEndian.AppendUint32(payload, uint32(len(m.Data))), m.Data...)
		n++
	}
	return payload, n, nil
}

var errManyReplies = nex.Errorf(nex.TooLarge, "more than %d replies or %d bytes came", maxReplies, maxAnswer)

// next returns the next reply that comes before due.
func next(ctx context.Context, replies *nats.Subscription, due time.Time) (*nats.Msg, error) {
	ctx, cancel := context.WithDeadline(ctx, due)
	defer cancel()
	m, err := replies.NextMsgWithContext(ctx)
	if err == nil && isNobody(m) {
		return nil, nats.ErrNoResponders
	}
	return m, err
}

// isNobody reports whether a reply is the server's, that nobody is there to
// answer.
func isNobody(m *nats.Msg) bool { return len(m.Data) == 0 && m.Header.Get("Status") == "503" }
