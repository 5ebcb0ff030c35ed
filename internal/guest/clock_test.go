package guest

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// TestPingTellsTheTime, and one of an older node does not.
func TestPingTellsTheTime(t *testing.T) {
	now := time.Date(2026, 2, 3, 4, 5, 6, 789, time.UTC)
	if got, ok := decodePing(encodePing(now)[1:]); !ok || !got.Equal(now) {
		t.Errorf("%v, %v", got, ok)
	}
	for _, body := range [][]byte{nil, {1}, make([]byte, 7), make([]byte, 9)} {
		if got, ok := decodePing(body); ok {
			t.Errorf("% x tells %v", body, got)
		}
	}
}

// counted is a stream that can write without waiting by itself.
type counted struct {
	net.Conn
	n atomic.Int32
}

// WriteNow writes one byte at a time, like a stream that is full.
func (c *counted) WriteNow(b []byte) int {
	c.n.Add(1)
	n, _ := c.Write(b[:1]) // the end of the link is seen by its reader
	return n
}

// TestStreamThatWritesItself: who brings a frame writes it that way, and the writer
// what did not go.
func TestStreamThatWritesItself(t *testing.T) {
	near, far := net.Pipe()
	conn := &counted{Conn: far}
	s := NewServer(conn, nil)
	asked := make(chan time.Time, 1)
	s.Clock = func(now time.Time) { asked <- now }
	served := make(chan error, 1)
	go func() { served <- s.Run(t.Context(), Hello{Version: "test"}) }()
	c, err := Greet(t.Context(), near)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := c.link.call(ctx, "", encodePing(time.Now()), nil); err != nil {
		t.Fatal(err)
	}
	<-asked
	if conn.n.Load() == 0 {
		t.Error("the answer took another way")
	}
	c.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
