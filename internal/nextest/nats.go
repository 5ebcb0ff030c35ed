package nextest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// Patience is how long a test waits for something that must happen. It is no
// measure of speed: it only ends tests that would wait for ever.
const Patience = 30 * time.Second

// Server runs a NATS server with JetStream on a free loopback port until the
// test ends.
func Server(t testing.TB) *server.Server {
	t.Helper()
	return ServerOn(t, server.RANDOM_PORT)
}

// ServerOn is [Server] on a given port.
func ServerOn(t testing.TB, port int) *server.Server {
	t.Helper()
	s, err := StartServer(t.TempDir(), port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return s
}

// StartServer starts a NATS server with JetStream on a loopback port, which
// the caller shuts down.
func StartServer(dir string, port int) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true,
	})
	if err != nil {
		return nil, fmt.Errorf("set up NATS server: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(Patience) {
		s.Shutdown()
		return nil, errors.New("NATS server did not start")
	}
	return s, nil
}

// Connect returns a connection to a server, closed when the test ends.
func Connect(t testing.TB, s *server.Server) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatalf("connect to NATS: %v", err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// Await waits until ch is closed or has a value.
func Await[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(Patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}
