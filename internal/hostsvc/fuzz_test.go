package hostsvc

import (
	"context"
	"slices"
	"testing"
	"time"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
)

// FuzzServe has calls of every kind made by somebody hostile: each is answered
// with one of the documented codes, and the next one is served.
func FuzzServe(f *testing.F) {
	type kind struct{ service, method string }
	var kinds []kind
	for service, methods := range services {
		for method := range methods {
			kinds = append(kinds, kind{service, method})
		}
	}
	for _, k := range kinds {
		f.Add(k.service, k.method, "key", "a", "subject", "b", "X", "y", []byte("z"))
		f.Add(k.service, k.method, "name", "a.*", "url", "http://127.0.0.1:1/", "Nats-Rollup", "all", []byte{})
		f.Add(k.service, k.method, "subject", "$JS.>", "timeout_ms", "9999999999", "a\r\n", "\x00", []byte(nil))
		f.Add(k.service, k.method, "subject", "q", "count", "-1", "Content-Length", "1", make([]byte, 2<<20))
		f.Add(k.service, k.method, "url", "http://[::1]:0/\x7f", "redirect", "manual", "Host", "h", []byte("z"))
		f.Add(k.service, k.method, "url", "https://\xff/", "quiet_ms", "0x1", "", "", []byte("z"))
	}
	f.Add("kv\x00", "get", "", "", "", "", "", "", []byte(nil))
	codes := []nex.Code{"", nex.Invalid, nex.NotFound, nex.Denied, nex.Timeout, nex.TooLarge, nex.Overloaded, nex.Unavailable, nex.Unsupported}

	r := newRig(f, Config{KV: Buckets{Storage: "memory"}, ObjectStore: Buckets{Storage: "memory"}, HTTP: HTTP{Deny: []string{"*"}}})
	s := r.open(f, "n", "w")
	other := r.open(f, "n", "v")
	do(f, other, "kv.set", args("key", "mine"), []byte("safe"))
	f.Fuzz(func(t *testing.T, service, method, arg1, value1, arg2, value2, header, text string, payload []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		start := time.Now()
		_, err := s.Serve(ctx, guest.HostCall{Service: service, Method: method, Timeout: time.Second, Message: guest.Message{
			Args: map[string]string{arg1: value1, arg2: value2}, Header: map[string][]string{header: {text}}, Payload: payload,
		}})
		if !slices.Contains(codes, nex.CodeOf(err)) {
			t.Errorf("%q: %v", nex.CodeOf(err), err)
		}
		if took := time.Since(start); took > nextest.Patience {
			t.Errorf("took %v", took)
		}
		if m := do(t, other, "kv.get", args("key", "mine"), nil); string(m.Payload) != "safe" {
			t.Errorf("another's value is %q", m.Payload)
		}
		if held := s.held.Load(); held != 0 || len(s.gate.inside) != 0 {
			t.Errorf("%d bytes held, %d calls under way", held, len(s.gate.inside))
		}
	})
}
