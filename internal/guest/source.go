package guest

import (
	"context"
	"errors"
	"net"
	"os"
	"time"
)

// source is what the reader reads from. Its wait for the next frame can be
// interrupted; what has begun to come is read to its end.
type source struct {
	net.Conn
	within bool // a frame is being read. It belongs to the reader.
}

// Read implements [io.Reader].
func (s *source) Read(p []byte) (int, error) {
	for {
		n, err := s.Conn.Read(p)
		if n > 0 || !s.within || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		_ = s.SetReadDeadline(time.Time{}) // fails only on a closed conn
	}
}

// interruptBy has the end of ctx interrupt the reader's wait, until the returned
// function is called.
func (s *source) interruptBy(ctx context.Context) (done func()) {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = s.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed conn
	})
	return func() {
		if !stop() {
			<-interrupted
			_ = s.SetReadDeadline(time.Time{}) // likewise
		}
	}
}
