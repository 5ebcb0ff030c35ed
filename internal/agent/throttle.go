package agent

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"nex/internal/runtime"
)

// What one workload may print in the long run, and in a burst: generous for
// logs, and little beside what a link carries. What is beyond is dropped.
const (
	linesPerSecond, linesAtOnce = 2_000, 20_000
	bytesPerSecond, bytesAtOnce = 2 << 20, 16 << 20
	// tellDropped is how long dropped lines are counted before they are told.
	tellDropped = time.Second
)

// throttle passes on what a workload prints, as long as that is not too much,
// and says how much was dropped.
type throttle struct {
	pass         runtime.Log
	lines, bytes *rate.Limiter

	mu      sync.Mutex
	dropped int
	size    int64
	due     *time.Timer // when they are told; nil if nothing was dropped
	telling sync.WaitGroup
	closed  bool
}

func newThrottle(pass runtime.Log) *throttle {
	return &throttle{
		pass:  pass,
		lines: rate.NewLimiter(linesPerSecond, linesAtOnce), bytes: rate.NewLimiter(bytesPerSecond, bytesAtOnce),
	}
}

// log is a [runtime.Log].
func (t *throttle) log(level slog.Level, text string) {
	now := time.Now()
	if t.lines.AllowN(now, 1) && t.bytes.AllowN(now, len(text)) {
		t.pass(level, text)
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropped++
	t.size += int64(len(text))
	if t.due == nil && !t.closed {
		t.telling.Add(1)
		t.due = time.AfterFunc(tellDropped, func() {
			defer t.telling.Done()
			t.tell()
		})
	}
}

// tell says what was dropped since it last did.
func (t *throttle) tell() {
	t.mu.Lock()
	dropped, size := t.dropped, t.size
	t.dropped, t.size, t.due = 0, 0, nil
	t.mu.Unlock()
	if dropped > 0 {
		t.pass(slog.LevelWarn, fmt.Sprintf("%d lines of %d bytes were dropped: a workload may print %d lines and %d bytes a second in the long run",
			dropped, size, linesPerSecond, bytesPerSecond))
	}
}

// close tells what is left to tell, when the workload has ended.
func (t *throttle) close() {
	t.mu.Lock()
	if t.due != nil && t.due.Stop() {
		t.telling.Done()
	}
	t.closed = true
	t.mu.Unlock()
	t.telling.Wait()
	t.tell()
}
