package hostsock_test

import (
	"net/http"
	"testing"

	"nex/internal/hostsock"
	"nex/internal/runtime"
)

// BenchmarkCall is what the way through the socket adds to a call: the host
// answers at once.
func BenchmarkCall(b *testing.B) {
	c := client(b, serve(b, hostsock.Listen, answering(runtime.Message{Payload: make([]byte, 100)}, nil)))
	for b.Loop() {
		if got := do(b, c, http.MethodGet, "/v1/kv/key", ""); got.status != 200 {
			b.Fatal(got.status)
		}
	}
}
