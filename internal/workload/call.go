package workload

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"nex"
	"nex/internal/guest"
)

// margin is how long after a function's timeout its agent's answer is waited
// for.
const margin = 100 * time.Millisecond

// call is one message on its way through a function. It holds no goroutine
// while the function runs.
type call struct {
	t        *triggers
	pattern  string // the trigger subject as registered
	m        *nats.Msg
	conn     *nats.Conn // it came on
	deadline time.Time
}

// invoke gives the call to a guest, or has it wait for the next one if that was
// lost before the call reached it.
func (c *call) invoke(g Guest) {
	tr := guest.Trigger{
		ID: c.t.w.id, Subject: c.m.Subject, Reply: c.m.Reply, Header: c.m.Header, Payload: c.m.Data, Timeout: time.Until(c.deadline),
	}
	g.Invoke(tr, c.deadline.Add(margin), !c.moreFollow(), func(r guest.Result, err error) {
		if errors.Is(err, guest.ErrNotSent) {
			c.t.lose(g)
			go c.await()
			return
		}
		c.end(r, err)
	})
}

// moreFollow reports whether other messages for the function have come in
// already, so that they can travel together.
func (c *call) moreFollow() bool {
	n, _, err := c.m.Sub.Pending()
	return err == nil && n > 1 // it counts the message that is being delivered
}

// await invokes the function once there is a guest.
func (c *call) await() {
	ctx, cancel := context.WithDeadline(context.Background(), c.deadline.Add(margin))
	defer cancel()
	g, err := c.t.current(ctx)
	if err != nil {
		c.end(guest.Result{}, err)
		return
	}
	c.invoke(g)
}

// end answers the call and makes room for the next.
func (c *call) end(r guest.Result, err error) {
	w := c.t.w
	w.busy.Add(int64(r.Elapsed))
	if errors.Is(err, context.DeadlineExceeded) {
		err = nex.Errorf(nex.Timeout, "function %s did not answer within %s", w.spec.Name, w.spec.Settings.FunctionTimeout())
	}
	if err == nil {
		err = c.sendable(r)
	}
	c.answer(r, err)
	<-c.t.slots
	c.t.calls.Done()
}

// sendable reports why a result cannot be a NATS message. What a guest says is
// not trusted to be one.
func (c *call) sendable(r guest.Result) error {
	for key, values := range r.Header {
		for _, v := range values {
			if !validHeader(key, v) {
				return nex.Errorf(nex.BadReply, "reply header %.40q cannot be sent", key)
			}
		}
	}
	size := (&nats.Msg{Header: r.Header, Data: r.Payload}).Size()
	if limit := c.conn.MaxPayload(); int64(size) > limit {
		return nex.Errorf(nex.BadReply, "reply of %d bytes is over the server's limit of %d", size, limit)
	}
	return nil
}

// validHeader reports whether a header can be sent and is read as it was meant:
// a printable key without a colon, a value on one line without space around it.
func validHeader(key, value string) bool {
	for _, r := range []byte(key) {
		if r <= ' ' || r >= 0x7f || r == ':' {
			return false
		}
	}
	return key != "" && !strings.ContainsAny(value, "\r\n\x00") && strings.Trim(value, " \t") == value
}

// answer replies to whoever waits, exactly once, and reports the call.
func (c *call) answer(r guest.Result, err error) {
	w := c.t.w
	if nex.ValidReply(c.m.Reply) {
		reply := &nats.Msg{Subject: c.m.Reply, Header: r.Header, Data: r.Payload}
		if err != nil {
			reply = failure(c.m.Reply, err, c.conn.MaxPayload())
		}
		if err := c.conn.PublishMsg(reply); err != nil {
			w.log.Warn("Reply could not be sent", "error", err)
		}
	}
	w.m.cfg.Reporter.Called(Call{
		Namespace: w.spec.Namespace, Name: w.spec.Name, ID: w.id, Trigger: c.pattern, Elapsed: r.Elapsed, Err: err,
	})
}

const (
	// textShare is the part of a message that an error's text may take: JSON may
	// need six times as much for it, and a header has it once more.
	textShare = 16
	// shortest is what is left of a text in any case, in bytes.
	shortest = 64
)

// failure is the reply to a call that failed: the headers of NATS micro and
// the error as JSON, cut to what the server takes.
func failure(subject string, err error, limit int64) *nats.Msg {
	text := err.Error()
	text = text[:min(len(text), int(max(limit/textShare, shortest)))]
	e := &nex.Error{Code: nex.CodeOf(err), Message: text}
	m := nats.NewMsg(subject)
	m.Header.Set(micro.ErrorHeader, oneLine(e.Message))
	m.Header.Set(micro.ErrorCodeHeader, strconv.Itoa(e.Code.Status()))
	m.Data, _ = json.Marshal(e) // two strings always have a JSON form
	return m
}

// oneLine makes a text safe for a header.
func oneLine(s string) string {
	const longest = 512
	clean := make([]rune, 0, min(len(s), longest))
	for _, r := range s {
		if len(clean) == longest || r == '\n' || r == '\r' {
			break
		}
		clean = append(clean, r)
	}
	return string(clean)
}
