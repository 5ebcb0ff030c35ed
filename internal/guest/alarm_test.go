package guest

import (
	"errors"
	"net"
	"testing"
	"time"
)

// TestLateAlarm: a node that was stopped for a while, and continued, takes no
// agent for hung whose answers it had no chance to read.
func TestLateAlarm(t *testing.T) {
	for name, c := range map[string]struct {
		late time.Duration
		hung bool
	}{
		"in time": {10 * time.Millisecond, true},
		"late":    {3 * time.Second, false},
	} {
		near, far := net.Pipe()
		defer far.Close()
		l := newLink(near, nil, nil)
		l.guarded = true
		now := time.Now()
		abandoned := &pendingCall{who: "w", due: now.Add(-c.late)}
		l.pending[1], l.alarmAt = abandoned, now.Add(-c.late)
		l.ring()
		if err := l.cause(); errors.Is(err, errHung) != c.hung {
			t.Errorf("%s: the link ended with %v", name, err)
		}
		if !c.hung && time.Until(abandoned.due) < hangAfter/2 {
			t.Errorf("%s: the agent has until %s", name, time.Until(abandoned.due))
		}
		l.close()
	}
}
