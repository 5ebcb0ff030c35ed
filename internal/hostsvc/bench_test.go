package hostsvc

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// BenchmarkKVGet compares a call with what the client does without one.
func BenchmarkKVGet(b *testing.B) {
	r := newRig(b, Config{})
	s := r.open(b, "n", "w")
	do(b, s, "kv.set", args("key", "a"), []byte("value"))
	b.Run("client", func(b *testing.B) {
		nc, _ := r.conn.opened()
		js, err := jetstream.New(nc)
		if err != nil {
			b.Fatal(err)
		}
		kv, err := js.KeyValue(b.Context(), "hs_n_w_kv")
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := kv.Get(b.Context(), "a"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("session", func(b *testing.B) {
		key := args("key", "a")
		for b.Loop() {
			do(b, s, "kv.get", key, nil)
		}
	})
}

// BenchmarkRequest is the same for a request.
func BenchmarkRequest(b *testing.B) {
	r := newRig(b, Config{})
	s := r.open(b, "n", "w")
	r.answer(b, "echo", func(m *nats.Msg) { _ = m.Respond(m.Data) })
	payload := []byte("payload")
	do(b, s, "messaging.request", args("subject", "echo"), payload)
	b.Run("client", func(b *testing.B) {
		nc, _ := r.conn.opened()
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		for b.Loop() {
			if _, err := nc.RequestWithContext(ctx, "echo", payload); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("session", func(b *testing.B) {
		subject := args("subject", "echo")
		for b.Loop() {
			do(b, s, "messaging.request", subject, payload)
		}
	})
}
