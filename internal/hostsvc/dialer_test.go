package hostsvc

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"nex"
	"nex/internal/nextest"
)

// A workload names many NATS servers, of which none ever says anything: neither
// its calls nor its end wait for all of them.
func TestServersThatSayNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // nobody accepts: connections wait with the system
	r := newRig(t, Config{})
	s := r.Open(Tenant{Namespace: "n", Workload: "w"}, Access{NATS: &nex.NATSAccess{URL: strings.TrimSuffix(strings.Repeat("nats://"+l.Addr().String()+",", 20), ",")}})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := ask(ctx, s, "kv.keys", nil, nil); nex.CodeOf(err) != nex.Timeout {
		t.Errorf("%v", err)
	}
	closed, begin := make(chan struct{}), time.Now()
	go func() { s.Close(); close(closed) }()
	nextest.Await(t, closed, "the end of the session")
	if took := time.Since(begin); took > openTimeout {
		t.Errorf("it took %s", took)
	}
}
