package node

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"testing"

	"nex"
	"nex/internal/guest"
	"nex/internal/workload"
)

// TestLogIsNotFlooded has a workload ask for what needs NATS again and again
// while that is not there.
func TestLogIsNotFlooded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nowhere := "nats://" + l.Addr().String()
	_ = l.Close()
	var log bytes.Buffer
	h, err := newHosts(Config{Server: nowhere, Log: slog.New(slog.NewTextHandler(&log, nil))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := h.open("id", workload.Spec{Namespace: "n", Name: "w"})
	for range 50 {
		if _, err := s.Serve(t.Context(), guest.HostCall{Service: "kv", Method: "keys"}); nex.CodeOf(err) != nex.Unavailable {
			t.Fatal(err)
		}
	}
	s.Close()
	h.Close()
	if n := strings.Count(log.String(), "cannot connect"); n != 1 {
		t.Errorf("%d lines", n)
	}
}
