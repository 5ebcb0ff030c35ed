//go:build linux

package chaos

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"nex"
)

// answer is what a call may be answered with.
func answer(id uint64, data string, code nex.Code) *nats.Msg {
	m := nats.NewMsg(fmt.Sprint(replyPrefix, id))
	m.Data = []byte(data)
	if code != "" {
		m.Header.Set(micro.ErrorCodeHeader, fmt.Sprint(code.Status()))
		m.Data = fmt.Appendf(nil, `{"code":%q,"message":"x"}`, code)
	}
	return m
}

func nobody(id uint64) *nats.Msg {
	m := answer(id, "", "")
	m.Header.Set("Status", "503")
	return m
}

// TestModel tells stories of one workload and holds what the model says of them
// against what it should, "" for nothing.
func TestModel(t *testing.T) {
	event := func(m *model, data nex.EventData) {
		e, err := nex.NewEvent("default", "N1-id", data)
		if err != nil {
			t.Fatal(err)
		}
		m.event(e)
	}
	later := func() time.Time { return time.Now().Add(time.Hour) }
	for story, c := range map[string]struct {
		tell func(m *model, l *load)
		want string
	}{
		"one reply":       {func(m *model, l *load) { m.reply(answer(1, "p", "")) }, ""},
		"two replies":     {func(m *model, l *load) { m.reply(answer(1, "p", "")); m.reply(answer(1, "p", "")) }, "has 2 replies"},
		"another's reply": {func(m *model, l *load) { m.reply(answer(1, "q", "")) }, `the reply to "p" is "q"`},
		"nobody's reply":  {func(m *model, l *load) { m.reply(answer(1, "p", "")); m.reply(answer(7, "p", "")) }, "a reply to nothing"},
		"a typed error":   {func(m *model, l *load) { m.reply(answer(1, "", nex.Unavailable)) }, ""},
		"an error it can": {func(m *model, l *load) { m.reply(answer(1, "", nex.OutOfMemory)) }, ""},
		"another error":   {func(m *model, l *load) { m.reply(answer(1, "", nex.Internal)) }, "the error is internal"},
		"no reply":        {func(m *model, l *load) { m.judge(later()) }, "has no reply"},
		"no reply yet":    {func(m *model, l *load) { m.judge(time.Now()) }, ""},
		"no reply, agent killed": {func(m *model, l *load) {
			m.over(m.begin(killAgent, 0, "f"))
			m.judge(later())
		}, "has no reply"},
		"no reply, another node killed": {func(m *model, l *load) {
			m.over(m.begin(killNode, 1, "f"))
			m.judge(later())
		}, "has no reply"},
		"no reply, node killed": {func(m *model, l *load) {
			m.over(m.begin(killNode, 0, "f"))
			m.judge(later())
		}, ""},
		"no reply, node of a copy killed": {func(m *model, l *load) {
			m.add(&load{name: l.name, subject: l.subject, node: 1, kind: l.kind, state: live})
			m.over(m.begin(killNode, 1, "f"))
			m.judge(later())
		}, ""},
		"no reply, server killed": {func(m *model, l *load) { m.begin(killServer, -1, "f"); m.judge(later()) }, ""},
		"nobody there":            {func(m *model, l *load) { m.reply(nobody(1)) }, "nobody listens"},
		"nobody there, stopped":   {func(m *model, l *load) { l.state = stopped; m.reply(nobody(1)) }, ""},
		"stopped": {func(m *model, l *load) {
			l.state, l.calm = stopped, true
			event(m, nex.WorkloadDeployed{})
			event(m, nex.WorkloadUndeployed{})
			m.checkEvents()
		}, ""},
		"stopped without an event": {func(m *model, l *load) {
			l.state, l.calm = stopped, true
			event(m, nex.WorkloadDeployed{})
			m.checkEvents()
		}, "there is no undeploy event"},
		"stopped twice": {func(m *model, l *load) {
			event(m, nex.WorkloadUndeployed{})
			event(m, nex.WorkloadUndeployed{})
		}, "for the 2. time"},
		"deployed after its end": {func(m *model, l *load) {
			event(m, nex.WorkloadUndeployed{})
			event(m, nex.WorkloadDeployed{})
		}, "after it was undeployed"},
		"ended with its node": {func(m *model, l *load) {
			event(m, nex.WorkloadUndeployed{})
			m.forgetEnds("N1")
			event(m, nex.WorkloadDeployed{})
			m.checkEvents()
		}, ""},
		"ended with its node, the answer of the deploy was lost": {func(m *model, l *load) {
			l.state, l.id = unsure, ""
			event(m, nex.WorkloadUndeployed{})
			m.forgetEnds("N1")
			event(m, nex.WorkloadDeployed{})
		}, ""},
		"stopped, then its node ended": {func(m *model, l *load) {
			l.state = stopped
			event(m, nex.WorkloadUndeployed{})
			m.forgetEnds("N1")
			event(m, nex.WorkloadDeployed{})
		}, "after it was undeployed"},
		"ended with another node": {func(m *model, l *load) {
			event(m, nex.WorkloadUndeployed{})
			m.forgetEnds("N2")
			event(m, nex.WorkloadDeployed{})
		}, "after it was undeployed"},
		"ended by itself": {func(m *model, l *load) { event(m, nex.WorkloadUndeployed{}); m.checkEvents() }, "nobody stopped it"},
	} {
		t.Run(story, func(t *testing.T) {
			m := newModel(t.Logf)
			k := &kind{name: "echo", typ: nex.V8, reply: same, answers: []nex.Code{nex.OutOfMemory}, settings: nex.Settings{FunctionTimeoutMS: 1000}}
			l := &load{name: "w", subject: "s", kind: k, state: live, id: "id"}
			m.add(l)
			m.newCall(l, 1, "p")
			c.tell(m, l)
			got := strings.Join(m.report().Violations, "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
