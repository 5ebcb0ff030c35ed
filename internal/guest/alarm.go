package guest

import (
	"context"
	"time"
)

// Deadlines of calls are kept by one timer a link. Most calls are answered long
// before; so it is rarely set, and never for each call.

// absent is how late an alarm may be. One that is later tells that this process
// was not running, and had no chance to read what may have come long ago.
const absent = time.Second

// watchLocked makes the alarm go off by then.
func (l *link) watchLocked(when time.Time) {
	if l.err != nil || !l.alarmAt.IsZero() && !when.Before(l.alarmAt) {
		return
	}
	l.alarmAt = when
	if l.alarm == nil {
		l.alarm = time.AfterFunc(time.Until(when), l.ring)
		return
	}
	l.alarm.Reset(time.Until(when))
}

// ring gives up the calls whose time is over, and the link if an end that is not
// trusted ignored for too long that a call was given up.
func (l *link) ring() {
	now := time.Now()
	var late []func(outcome)
	var hung bool
	var culprits []string
	l.mu.Lock()
	away := !l.alarmAt.IsZero() && now.Sub(l.alarmAt) > absent
	l.alarmAt = time.Time{}
	for id, c := range l.pending {
		if c.due.IsZero() {
			continue
		}
		if away && c.done == nil {
			c.due = now.Add(hangAfter)
		}
		if !c.due.After(now) {
			if c.done == nil {
				if !l.guarded {
					continue // it is the node that takes long
				}
				hung = true
				culprits = append(culprits, c.who)
				continue
			}
			late = append(late, c.done)
			l.abandonLocked(id, c)
		}
		l.watchLocked(c.due)
	}
	for _, s := range l.serving {
		switch {
		case s.due.IsZero():
		case s.due.After(now):
			l.watchLocked(s.due)
		default:
			s.end(context.DeadlineExceeded)
		}
	}
	l.mu.Unlock()
	if hung {
		l.fail(errHung, culprits...)
	}
	for _, done := range late {
		done(outcome{err: context.DeadlineExceeded})
	}
}

// expire makes the context of a call that is served end by then.
func (l *link) expire(s *serving, due time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.due = due
	l.watchLocked(due)
}

// abandonLocked tells the other end to stop a call and keeps its id reserved
// until the answer is in.
func (l *link) abandonLocked(id uint32, c *pendingCall) {
	c.done = nil
	c.due = time.Now().Add(hangAfter)
	l.watchLocked(c.due)
	l.outbox.add(frame{kind: kindCancel, id: id}, soon)
}
