package nex_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"nex"
)

func TestSubjects(t *testing.T) {
	for got, want := range map[string]string{
		nex.PingSubject:                             "$NEX.PING",
		nex.WorkloadPingSubject:                     "$NEX.WPING",
		nex.AuctionSubject:                          "$NEX.AUCTION",
		nex.NodePingSubject("N1"):                   "$NEX.PING.N1",
		nex.InfoSubject("ns", "N1"):                 "$NEX.INFO.ns.N1",
		nex.DeploySubject("ns", "N1"):               "$NEX.DEPLOY.ns.N1",
		nex.StopSubject("ns", "N1"):                 "$NEX.STOP.ns.N1",
		nex.LameDuckSubject("N1"):                   "$NEX.LAMEDUCK.N1",
		nex.EventSubject("ns", "heartbeat"):         "$NEX.events.ns.heartbeat",
		nex.EventSubject("*", "*"):                  "$NEX.events.*.*",
		nex.SystemLogSubject("N1", "stdout"):        "$NEX.logs.system.N1.stdout",
		nex.LogSubject{}.String():                   "$NEX.logs....",
		nex.LogSubject{"a", "b", "c", "d"}.String(): "$NEX.logs.a.b.c.d",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestParseSubjectsRefuse(t *testing.T) {
	for _, s := range []string{
		"", "$NEX", "$NEX.logs", "$NEX.logs.a.b.c", "$NEX.logs.a.b.c.d.e", "$nex.logs.a.b.c.d", "$NEX.log.a.b.c.d",
		"$NEX.logs.system.N1.stdout", "$NEX.events.a.b", "x.logs.a.b.c.d",
	} {
		if got, err := nex.ParseLogSubject(s); err == nil {
			t.Errorf("log subject %q: %+v", s, got)
		}
	}
	for _, s := range []string{"", "$NEX", "$NEX.events", "$NEX.events.a", "$NEX.events.a.b.c", "x.events.a.b", "$NEX.EVENTS.a.b", "$NEX.logs.a.b"} {
		if ns, typ, err := nex.ParseEventSubject(s); err == nil {
			t.Errorf("event subject %q: %q %q", s, ns, typ)
		}
	}
}

func FuzzLogSubject(f *testing.F) {
	f.Add("$NEX.logs.default.N1.echofn.cq1a2b3c4d5e6f7g8h90")
	f.Add("$NEX.logs.*.*.*.*")
	f.Add("$NEX.logs....")
	f.Add("$NEX.logs.system.N1.stdout")
	f.Fuzz(func(t *testing.T, in string) {
		s, err := nex.ParseLogSubject(in)
		if err == nil && s.String() != in {
			t.Errorf("%q became %q", in, s)
		}
	})
}

func FuzzEventSubject(f *testing.F) {
	f.Add("$NEX.events.system.heartbeat")
	f.Add("$NEX.events..")
	f.Add("$NEX.events.a.b.c")
	f.Fuzz(func(t *testing.T, in string) {
		ns, typ, err := nex.ParseEventSubject(in)
		if err == nil && nex.EventSubject(ns, typ) != in {
			t.Errorf("%q became %q", in, nex.EventSubject(ns, typ))
		}
	})
}

func TestValidToken(t *testing.T) {
	for s, want := range map[string]bool{
		"default": true, "a-b_c": true, "ü": true, "$x": true, strings.Repeat("x", 255): true, strings.Repeat("x", 256): false,
		"": false, "a.b": false, ".": false, "*": false, "a*": false, ">": false, "a>": false,
		"a b": false, " ": false, "a\n": false, "\x00": false, "\x7f": false, "\t": false,
	} {
		if nex.ValidToken(s) != want {
			t.Errorf("%q: want %v", s, want)
		}
	}
}

func TestValidTrigger(t *testing.T) {
	for _, s := range []string{"a", "js.echo", "js.*", "*.js", "*", ">", "js.>", "*.>", "a*.b", "a>.b", "$SYS.x", "js.ü", strings.Repeat("x", 1024)} {
		if err := nex.ValidTrigger(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{"", ".", "a.", ".a", "a..b", ">.a", "a.>.b", "a b", "a.\tb", "a\r\nPING", "a\x00", "a.\x7f", " ", strings.Repeat("x", 1025)} {
		if err := nex.ValidTrigger(s); nex.CodeOf(err) != nex.Invalid {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// FuzzValidTrigger: what is allowed, a NATS server can subscribe to.
func FuzzValidTrigger(f *testing.F) {
	for _, s := range []string{"js.echo", "js.*", ">", "a.>.b", "a..b", "a\fb", "a*b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if nex.ValidTrigger(s) == nil && !server.IsValidSubject(s) {
			t.Errorf("%q is no subject", s)
		}
	})
}

func TestSubjectsOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "a.b", false}, {"*", "a", true}, {"*", "a.b", false},
		{">", "a", true}, {">", "a.b.c", true}, {"a.>", "a", false}, {"a.>", "a.b", true}, {"a.>", "b.>", false},
		{"a.*", "*.b", true}, {"a.*.c", "*.b.d", false}, {"*.b", ">", true}, {"$JS.API.>", "$JS.*.x", true}, {">", ">", true},
	} {
		if nex.SubjectsOverlap(c.a, c.b) != c.want || nex.SubjectsOverlap(c.b, c.a) != c.want {
			t.Errorf("%q and %q: want %v", c.a, c.b, c.want)
		}
	}
}

func FuzzSubjectsOverlap(f *testing.F) {
	f.Add("\x00\x01", "\x03\x01", "\x00\x01")
	f.Add("\x04", "\x00\x04", "\x00\x00")
	f.Add("\x03\x03", "\x03", "\x02")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if nex.SubjectsOverlap(a, b) != nex.SubjectsOverlap(b, a) {
			t.Errorf("%q and %q: not symmetric", a, b)
		}
		p, q, literal := pattern(a, "abc*>"), pattern(b, "abc*>"), pattern(c, "abc")
		overlap := nex.SubjectsOverlap(p, q)
		if overlap != nex.SubjectsOverlap(q, p) {
			t.Errorf("%q and %q: not symmetric", p, q)
		}
		if overlap != server.SubjectsCollide(p, q) {
			t.Errorf("%q and %q: overlap %v, the NATS server says otherwise", p, q, overlap)
		}
		if matches(p, literal) && matches(q, literal) && !overlap {
			t.Errorf("%q and %q both match %q", p, q, literal)
		}
		if nex.SubjectsOverlap(p, literal) != matches(p, literal) {
			t.Errorf("%q matches %q: want %v", p, literal, matches(p, literal))
		}
	})
}

// pattern makes a valid subject of up to 6 one-letter tokens, chosen by the
// bytes of seed from an alphabet.
func pattern(seed, alphabet string) string {
	tokens := []string{"a"}
	for i := range min(len(seed), 6) {
		tokens = append(tokens[:i], string(alphabet[int(seed[i])%len(alphabet)]))
		if tokens[i] == ">" {
			break
		}
	}
	return strings.Join(tokens, ".")
}

// matches reports whether a subscription to p gets what is published on s.
func matches(p, s string) bool {
	token, rest, more := strings.Cut(p, ".")
	head, tail, longer := strings.Cut(s, ".")
	switch {
	case token == ">":
		return true
	case token != "*" && token != head, more != longer:
		return false
	}
	return !more || matches(rest, tail)
}

func TestValidReply(t *testing.T) {
	for s, want := range map[string]bool{
		"_INBOX.x": true, "reply.here": true, "$JSON": true, "$NEXT.x": true, strings.Repeat("x", 1024): true,
		"": false, "$NEX.LAMEDUCK.N1": false, "$NEX.events.ns.heartbeat": false, "$JS.API.STREAM.DELETE.x": false, "$SYS.REQ.x": false,
		"$JS.hub.API.STREAM.DELETE.x": false, "$KV.b.k": false, "$O.b.C.x": false, strings.Repeat("x", 1025): false,
	} {
		if nex.ValidReply(s) != want {
			t.Errorf("%q: want %t", s, want)
		}
	}
}
