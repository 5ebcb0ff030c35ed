//go:build linux

package chaos

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"nex"
)

// replyPrefix begins the subject that a call is answered on; its number follows.
const replyPrefix = "chaos.r."

const (
	// margin is how long after its function's timeout a node must have answered.
	margin = 100 * time.Millisecond
	// slack is for a host that does much else.
	slack = 8 * time.Second
	// influence is for how long after a node must have answered a fault may still
	// be the reason that it did not.
	influence = 2 * time.Second
)

// anyCall are codes with which a call of any function may fail: its machine was
// lost, or did not answer.
var anyCall = []nex.Code{nex.Unavailable, nex.Timeout, nex.Overloaded}

// newCall notes a call that is going to be sent.
func (m *model) newCall(l *load, id uint64, payload string) *call {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &call{id: id, load: l, payload: payload, sent: time.Now()}
	m.calls[id] = c
	m.waiting = append(m.waiting, c)
	m.counts.calls++
	return c
}

// unsent notes that a call was not.
func (m *model) unsent(c *call) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.unsent++
	m.waiting = slices.DeleteFunc(m.waiting, func(other *call) bool { return other == c })
}

// reply takes note of what comes on a call's subject.
func (m *model) reply(msg *nats.Msg) {
	id, _ := strconv.ParseUint(strings.TrimPrefix(msg.Subject, replyPrefix), 10, 64)
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.calls[id]
	if c == nil {
		m.violateLocked("a reply to nothing on %s: %.60q", msg.Subject, msg.Data)
		return
	}
	c.replies++
	m.waiting = slices.DeleteFunc(m.waiting, func(other *call) bool { return other == c })
	if c.replies > 1 {
		m.violateLocked("call %d to %s has %d replies", c.id, c.load, c.replies)
	}
	if late := time.Since(c.sent) - c.load.kind.timeout() - margin; late > m.counts.latest && !c.load.kind.service() &&
		!m.disturbedCallLocked(c, c.sent, time.Now(), faultKind.excuses) {
		m.counts.latest = late
	}
	if wrong := m.contentLocked(c, msg); wrong != "" {
		m.violateLocked("call %d to %s, which was %s, sent at %.3f s: %s", c.id, c.load, c.load.state, c.sent.Sub(m.begun).Seconds(), wrong)
	}
}

// contentLocked says what is wrong with a reply, "" for nothing.
func (m *model) contentLocked(c *call, msg *nats.Msg) string {
	k := c.load.kind
	if len(msg.Data) == 0 && msg.Header.Get("Status") == "503" {
		return m.nobodyLocked(c)
	}
	if msg.Header.Get(micro.ErrorCodeHeader) == "" {
		m.counts.replies++
		if k.reply == nil || k.reply(c.payload, c.load.subject) != string(msg.Data) {
			return fmt.Sprintf("the reply to %q is %.80q", c.payload, msg.Data)
		}
		return ""
	}
	var e nex.Error
	if err := json.Unmarshal(msg.Data, &e); err != nil {
		return fmt.Sprintf("the error %.80q cannot be read: %v", msg.Data, err)
	}
	m.counts.errors[e.Code]++
	if !slices.Contains(anyCall, e.Code) && !slices.Contains(k.answers, e.Code) {
		return fmt.Sprintf("the error is %s: %s", e.Code, e.Message)
	}
	if !slices.Contains(k.answers, e.Code) && !m.disturbedCallLocked(c, c.sent.Add(-unsettled), time.Now(), anyFault) && c.load.state == live {
		m.counts.unprovoked++
		m.log("unprovoked: call %d to %s: %s: %s", c.id, c.load, e.Code, e.Message)
	}
	return ""
}

// nobodyLocked says what is wrong with a call that nobody was there for, "" for
// nothing.
func (m *model) nobodyLocked(c *call) string {
	switch {
	case c.load.kind.service():
		m.counts.nobody["service down"]++
	case c.load.state != live:
		m.counts.nobody[c.load.state.String()]++
	case m.disturbedCallLocked(c, c.sent, time.Now(), faultKind.excuses):
		m.counts.nobody["excused"]++
	default:
		return "nobody listens on its subject"
	}
	return ""
}

// unsettled is how long after a fault that nobody has to get over its
// consequences may last.
const unsettled = 15 * time.Second

// anyFault is true of every fault.
func anyFault(faultKind) bool { return true }

// judge finds calls that nobody answered.
func (m *model) judge(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiting = slices.DeleteFunc(m.waiting, func(c *call) bool {
		due := c.sent.Add(c.load.kind.timeout() + margin)
		if now.Before(due.Add(slack)) {
			return false
		}
		c.judged = true
		switch {
		case c.load.kind.service():
			m.counts.silent++ // a service that ends answers nothing, and nobody does for it
		case m.disturbedCallLocked(c, c.sent, due.Add(influence), faultKind.excuses):
			m.counts.excused++
		default:
			m.violateLocked("call %d to %s, sent at %.3f s, has no reply", c.id, c.load, c.sent.Sub(m.begun).Seconds())
		}
		return true
	})
}
