package guest

import (
	"context"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// TestNoCallIsUnminded has the reader begin calls just when mind would end:
// either mind goes on, or another is started.
func TestNoCallIsUnminded(t *testing.T) {
	const rounds = 300_000
	var turn turn
	var asked, answered atomic.Int64
	var alone bool
	wrong := 0
	go func() {
		for n := range int64(rounds) {
			for asked.Load() <= n {
				runtime.Gosched()
			}
			_, alone = turn.begin()
			answered.Store(n + 1)
		}
	}()
	for n := range int64(rounds) {
		turn.awake.Store(true)
		v := turn.state.Load()
		asked.Store(n + 1)
		ended := turn.rest(v)
		for answered.Load() <= n {
			runtime.Gosched()
		}
		if alone != ended {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d times nobody, or two, mind the reader", wrong, rounds)
	}
}

// TestRepliesThatAreHeldBackMakeRoom has the reader hold back more than senders
// may leave waiting: the next one does not wait until somebody releases them.
func TestRepliesThatAreHeldBackMakeRoom(t *testing.T) {
	near, far := net.Pipe()
	l := newLink(near, nil, nil)
	l.wg.Go(func() { _ = l.outbox.write(l.done) })
	drained := make(chan struct{})
	go func() { defer close(drained); _, _ = io.Copy(io.Discard, far) }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	body := make([]byte, maxFrame)
	for range 2 * crowded / maxFrame {
		if err := l.outbox.put(ctx, l.done, frame{kind: kindReply, id: 1, body: body}, later); err != nil {
			t.Fatal(err)
		}
	}
	l.close()
	<-drained
}
