package guest

import (
	"errors"
	"net"
	"os"
	"time"
)

// source is what the reader reads from. Its wait for the next frame ends at the
// deadline, if there is one; what has begun to come is read to its end.
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
