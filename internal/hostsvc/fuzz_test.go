package hostsvc

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
)

// hostile is a workload that makes strange calls, beside another that must not
// notice.
type hostile struct {
	*Session
	other *Session
}

func newHostile(t testing.TB) hostile {
	r := newRig(t, Config{KV: Buckets{Storage: "memory"}, ObjectStore: Buckets{Storage: "memory"}, HTTP: HTTP{Deny: []string{"*"}}})
	h := hostile{r.open(t, "n", "w"), r.open(t, "n", "v")}
	do(t, h.other, "kv.set", args("key", "mine"), []byte("safe"))
	return h
}

var documented = []nex.Code{"", nex.Invalid, nex.NotFound, nex.Denied, nex.Timeout, nex.TooLarge, nex.Overloaded, nex.Unavailable, nex.Unsupported}

// call makes a call and checks that it is answered with one of the documented
// codes, and that the next one is served.
func (h hostile) call(t testing.TB, c guest.HostCall) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	start := time.Now()
	_, err := h.Serve(ctx, c)
	if !slices.Contains(documented, nex.CodeOf(err)) {
		t.Errorf("%.1000v: %q: %v", c, nex.CodeOf(err), err)
	}
	if took := time.Since(start); took > nextest.Patience {
		t.Errorf("%.1000v: took %v", c, took)
	}
	if m := do(t, h.other, "kv.get", args("key", "mine"), nil); string(m.Payload) != "safe" {
		t.Errorf("%.1000v: another's value is %q", c, m.Payload)
	}
	if held := h.held.Load(); held != 0 || len(h.gate.inside) != 0 {
		t.Errorf("%.1000v: %d bytes held, %d calls under way", c, held, len(h.gate.inside))
	}
}

func FuzzServe(f *testing.F) {
	for service, methods := range services {
		for method := range methods {
			f.Add(service, method, "key", "a", "subject", "b", "X", "y", []byte("z"))
			f.Add(service, method, "url", "https://\xff/", "quiet_ms", "0x1", "", "", make([]byte, 2<<20))
		}
	}
	h := newHostile(f)
	f.Fuzz(func(t *testing.T, service, method, arg1, value1, arg2, value2, header, text string, payload []byte) {
		h.call(t, guest.HostCall{Service: service, Method: method, Timeout: time.Second, Message: guest.Message{
			Args: map[string]string{arg1: value1, arg2: value2}, Header: map[string][]string{header: {text}}, Payload: payload,
		}})
	})
}

// TestHostileCalls makes calls of what is likely to hurt, put together at random.
func TestHostileCalls(t *testing.T) {
	h := newHostile(t)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	one := func(list []string) string { return list[r.IntN(len(list))] }
	var kinds [][2]string
	for service, methods := range services {
		for method := range methods {
			kinds = append(kinds, [2]string{service, method})
		}
	}
	names := []string{"key", "name", "subject", "url", "timeout_ms", "quiet_ms", "count", "redirect", "", "\x00"}
	values := []string{
		"", "a", "a.b", "a..b", "*", ">", "a.>", "$JS.API.>", "$JS.API.INFO", "_INBOX.x", "a b", "a\r\nPUB x 0\r\n\r\n", "\x00", "\xff", "ü", "mine",
		"1", "0", "-1", "50", "1e9", "9223372036854775807", "99999999999999999999", "follow", "manual",
		"http://127.0.0.1:1/", "http://[::1]:0/\x7f", "https://\xff/", "http://a:b@c:d", "http://%00/", "//x", "file:///etc/passwd", "http://x/" + strings.Repeat("y", 70_000),
		strings.Repeat("k", 1024), strings.Repeat("k", 1025), strings.Repeat("a.", 511) + "a", strings.Repeat("x", 1<<20), "../../x", "a/b=c",
	}
	headers := []string{"", "X", "Nats-Msg-Id", "Nats-Rollup", "Nats-TTL", "Nats-Expected-Stream", "Nats-Expected-Last-Sequence", "Status", "KV-Operation", "Host", "Content-Length", "Accept-Encoding", "a:b", "a\r\nb", "ü", strings.Repeat("h", 1<<20)}
	for range 3000 {
		kind := kinds[r.IntN(len(kinds))]
		c := guest.HostCall{Service: kind[0], Method: kind[1], Message: guest.Message{
			Args:    map[string]string{"timeout_ms": "20", one(names): one(values), one(names): one(values), one(names): one(values)},
			Payload: make([]byte, r.IntN(2)*r.IntN(300)),
		}}
		if r.IntN(3) == 0 {
			c.Header = map[string][]string{one(headers): {one(values), one(values)}}
		}
		if r.IntN(100) == 0 {
			c.Payload = make([]byte, 3<<20)
		}
		if r.IntN(50) == 0 {
			c.Method = one(values)
		}
		h.call(t, c)
	}
}
