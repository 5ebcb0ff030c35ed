package hostsvc

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
)

// answer subscribes to a subject for the length of the test.
func (r *rig) answer(t testing.TB, subject string, how func(*nats.Msg)) {
	t.Helper()
	if _, err := r.nc.Subscribe(subject, how); err != nil {
		t.Fatal(err)
	}
	if err := r.nc.Flush(); err != nil {
		t.Fatal(err)
	}
}

// replies takes the payload of a requestMany apart.
func replies(t testing.TB, m guest.Message) (list []string) {
	t.Helper()
	for b := m.Payload; len(b) > 0; {
		n := binary.BigEndian.Uint32(b)
		list = append(list, string(b[4:4+n]))
		b = b[4+n:]
	}
	if m.Args["count"] != fmt.Sprint(len(list)) {
		t.Errorf("count is %s of %d", m.Args["count"], len(list))
	}
	slices.Sort(list)
	return list
}

func TestPublish(t *testing.T) {
	r := newRig(t, Config{})
	s := r.open(t, "n", "w")
	got := make(chan *nats.Msg, 1)
	r.answer(t, "hello.>", func(m *nats.Msg) { got <- m })
	_, err := s.Serve(t.Context(), guest.HostCall{Service: "messaging", Method: "publish", Message: guest.Message{
		Args: args("subject", "hello.world"), Payload: allBytes(256), Header: map[string][]string{"X-a": {"1", "ü"}, "Nats-Msg-Id": {"7"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	m := nextest.Await(t, got, "the message")
	if m.Subject != "hello.world" || m.Reply != "" || !bytes.Equal(m.Data, allBytes(256)) || !slices.Equal(m.Header["X-a"], []string{"1", "ü"}) {
		t.Errorf("%+v", m)
	}
	fails(t, s, "messaging.publish", args("subject", "hello.x"), make([]byte, 1<<20+1), nex.TooLarge, "")
}

func TestRequest(t *testing.T) {
	r := newRig(t, Config{})
	s := r.open(t, "n", "w")
	r.answer(t, "echo", func(m *nats.Msg) {
		_ = m.RespondMsg(&nats.Msg{Data: append([]byte("resp: "), m.Data...), Header: m.Header})
	})
	r.answer(t, "silent", func(*nats.Msg) {})
	m, err := s.Serve(t.Context(), guest.HostCall{Service: "messaging", Method: "request", Message: guest.Message{
		Args: args("subject", "echo"), Payload: []byte("payload"), Header: map[string][]string{"X": {"y"}},
	}})
	if err != nil || string(m.Payload) != "resp: payload" || m.Header["X"][0] != "y" {
		t.Errorf("%+v, %v", m, err)
	}
	fails(t, s, "messaging.request", args("subject", "silent", "timeout_ms", "20"), nil, nex.Timeout, "in time")
	fails(t, s, "messaging.request", args("subject", "nobody"), nil, nex.Unavailable, "nobody answers")
	for _, bad := range []string{"0", "-1", "1.5", "x", "99999999999999999999", "86400001"} {
		for _, method := range []string{"messaging.request", "messaging.requestMany"} {
			fails(t, s, method, args("subject", "echo", "timeout_ms", bad), nil, nex.Invalid, "timeout_ms")
		}
		fails(t, s, "messaging.requestMany", args("subject", "echo", "count", bad), nil, nex.Invalid, "count")
		fails(t, s, "messaging.requestMany", args("subject", "echo", "quiet_ms", bad), nil, nex.Invalid, "quiet_ms")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := ask(ctx, s, "messaging.request", args("subject", "silent"), nil); nex.CodeOf(err) != nex.Timeout {
		t.Errorf("at the deadline: %v", err)
	}
}

func TestRequestMany(t *testing.T) {
	r := newRig(t, Config{})
	s := r.open(t, "n", "w")
	for i := range 3 {
		r.answer(t, "echo", func(m *nats.Msg) { _ = m.Respond(fmt.Append(nil, i)) })
	}
	r.answer(t, "silent", func(*nats.Msg) {})
	r.answer(t, "flood", func(m *nats.Msg) {
		for range maxReplies + 1 {
			_ = m.Respond(nil)
		}
	})
	r.answer(t, "large", func(m *nats.Msg) {
		for range maxAnswer/(1<<20) + 1 {
			_ = m.Respond(make([]byte, 1<<20))
		}
	})
	if got := replies(t, do(t, s, "messaging.requestMany", args("subject", "echo", "count", "3", "timeout_ms", "60000"), nil)); !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("%v", got)
	}
	if got := replies(t, do(t, s, "messaging.requestMany", args("subject", "echo", "count", "1", "timeout_ms", "60000"), nil)); len(got) != 1 {
		t.Errorf("%v", got)
	}
	if got := replies(t, do(t, s, "messaging.requestMany", args("subject", "echo", "quiet_ms", "500", "timeout_ms", "60000"), nil)); len(got) != 3 {
		t.Errorf("until it is quiet: %v", got)
	}
	if got := replies(t, do(t, s, "messaging.requestMany", args("subject", "silent", "timeout_ms", "20"), nil)); len(got) != 0 {
		t.Errorf("%v", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	m, err := ask(ctx, s, "messaging.requestMany", args("subject", "echo", "timeout_ms", "60000"), nil)
	if err != nil || len(replies(t, m)) != 3 {
		t.Errorf("before the deadline: %v, %v", m, err)
	}
	fails(t, s, "messaging.requestMany", args("subject", "nobody"), nil, nex.Unavailable, "nobody answers")
	fails(t, s, "messaging.requestMany", args("subject", "flood", "timeout_ms", "60000"), nil, nex.TooLarge, "replies")
	fails(t, s, "messaging.requestMany", args("subject", "large", "timeout_ms", "60000"), nil, nex.TooLarge, "bytes")
	if held := s.held.Load(); held != 0 {
		t.Errorf("%d bytes are held", held)
	}
}

func TestSubjects(t *testing.T) {
	r := newRig(t, Config{Messaging: Messaging{Allow: []string{"ok.>", "$JS.>"}, Deny: []string{"ok.not.*", "ok.*.no"}}})
	s := r.open(t, "n", "w")
	for _, method := range []string{"messaging.publish", "messaging.request", "messaging.requestMany"} {
		fails(t, s, method, nil, nil, nex.Invalid, "subject is required")
		for _, subject := range []string{
			"*", ">", "ok.*", "ok.>", "a..b", ".a", "a.", ".", "a b", "a\tb", "ok.a\r\nPUB b 0\r\n\r\n", "a\x00", "a\u0085b", "a\u2028b", "a\xff", strings.Repeat("a", 1025),
		} {
			fails(t, s, method, args("subject", subject), nil, nex.Invalid, "the subject")
		}
		for _, subject := range []string{
			"$JS.API.STREAM.LIST", "$NEX.LAMEDUCK.x", "$SYS.REQ.SERVER.PING", "$KV.a.b", "$O.a.C.b", "$SRV.PING", "$", "$x", "_INBOX", "_INBOX.a.b", "_R_.a", "_GR_.a",
			"other", "ok", "ok.not.this", "ok.is.no",
		} {
			fails(t, s, method, args("subject", subject), nil, nex.Denied, "")
		}
	}
	do(t, s, "messaging.publish", args("subject", "ok.yes"), nil)
	do(t, s, "messaging.publish", args("subject", "ok.not.this.too"), nil)

	prefixed, err := New(Config{}, func(context.Context) (*nats.Conn, error) {
		return nats.Connect(r.nats.ClientURL(), nats.CustomInboxPrefix("mine.answers"))
	}, r.refuse)
	if err != nil {
		t.Fatal(err)
	}
	defer prefixed.Close()
	p := prefixed.Open(Tenant{}, Access{})
	defer p.Close()
	for _, subject := range []string{"mine.answers.x.y", "mine.answers", "_INBOX.x"} {
		fails(t, p, "messaging.publish", args("subject", subject), nil, nex.Denied, "not for workloads")
	}
	do(t, p, "messaging.publish", args("subject", "mine.answersx"), nil)
}

func TestMessageHeaders(t *testing.T) {
	r := newRig(t, Config{})
	s := r.open(t, "n", "w")
	for name, code := range map[string]nex.Code{
		"": nex.Invalid, "a:b": nex.Invalid, "a b": nex.Invalid, "a\r\nb": nex.Invalid, "ü": nex.Invalid, "a\x7f": nex.Invalid,
		"Nats-Trace-Dest": nex.Denied, "nats-rollup": nex.Denied, "NATS-SCHEDULE-TARGET": nex.Denied, "Nats-Request-Info": nex.Denied, "Nats-New": nex.Denied,
		"nats-msg-id": "", "Nats-Expected-Stream": "", "Nats-Service-Error-Code": "", "X-Nats-Y": "", "traceparent": "",
	} {
		_, err := s.Serve(t.Context(), guest.HostCall{Service: "messaging", Method: "publish", Message: guest.Message{
			Args: args("subject", "a"), Header: map[string][]string{name: {"v"}},
		}})
		if nex.CodeOf(err) != code {
			t.Errorf("%q: %v, want %s", name, err, code)
		}
	}
	for _, value := range []string{"a\r\nb: c", "a\nb", "\x00"} {
		_, err := s.Serve(t.Context(), guest.HostCall{Service: "messaging", Method: "publish", Message: guest.Message{
			Args: args("subject", "a"), Header: map[string][]string{"X": {value}},
		}})
		if nex.CodeOf(err) != nex.Invalid {
			t.Errorf("%q: %v", value, err)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, subject string
		want             bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "a.b", false}, {"a.b", "a", false}, {"*", "a", true}, {"*", "a.b", false},
		{">", "a", true}, {">", "a.b.c", true}, {"a.>", "a", false}, {"a.>", "a.b.c", true}, {"a.*.c", "a.b.c", true}, {"a.*.c", "a.b.d", false},
		{"$SYS.>", "$SYS.this.is.a.test", true}, {"$JS.>", "bob.test", false},
	} {
		if got := match(c.pattern, c.subject); got != c.want {
			t.Errorf("%s of %s: %v", c.pattern, c.subject, got)
		}
	}
	for _, bad := range []string{"", "a..b", ">.a", "a b", "."} {
		if checkPattern(bad) == nil {
			t.Errorf("%q is a pattern", bad)
		}
	}
}
