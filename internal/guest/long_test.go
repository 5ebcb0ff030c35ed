package guest

import (
	"bufio"
	"context"
	"errors"
	"net"
	"testing"
	"time"
)

// TestLateLongCallIsCancelledBehindItsEnd has a call become late while only a
// part of it is out: the other end hears that it is to stop after it can know of
// the call, not only before.
func TestLateLongCallIsCancelledBehindItsEnd(t *testing.T) {
	near, far := net.Pipe()
	l := newLink(near, nil, nil)
	l.start()
	defer l.close()
	late := make(chan error, 1)
	l.begin("w", nil, make([]byte, 3<<20), time.Now().Add(20*time.Millisecond), soon, func(o outcome) { late <- o.err })
	if err := <-late; !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	r := bufio.NewReader(far)
	for whole := false; ; {
		f, err := readFrame(r)
		if err != nil {
			t.Fatalf("the call is out: %v, but no cancel came behind it: %v", whole, err)
		}
		whole = whole || f.kind == kindCall && !f.more
		if whole && f.kind == kindCancel {
			return
		}
	}
}
