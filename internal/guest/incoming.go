package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"nex"
)

// read is the reader: it takes frames until the link ends, or until it loses
// its turn.
func (l *link) read() {
	for {
		if mine, err := l.readOne(); !mine || err != nil {
			return
		}
	}
}

// comes waits for the next frame and reports whether it, or the end of the
// stream, can be read, false if the wait was interrupted.
func (l *link) comes() bool {
	if !whole(l.r) {
		l.outbox.release()
	}
	_, err := l.r.Peek(headerSize)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// readOne takes one frame; an error has ended the link. mine is false when the
// turn to read passed to another meanwhile.
func (l *link) readOne() (mine bool, err error) {
	if !whole(l.r) {
		l.outbox.release()
	}
	l.in.within = true
	f, err := readFrame(l.r)
	l.in.within = false
	if err == nil {
		mine, err = l.take(f)
	}
	if errors.Is(err, io.EOF) {
		err = errEnded
	}
	if err != nil {
		l.fail(err)
	}
	return mine, err
}

// take handles one frame; an error ends the link. mine is false when the turn to
// read passed to another meanwhile.
func (l *link) take(f frame) (mine bool, err error) {
	switch f.kind {
	case kindNotice:
		if f.more || f.id != 0 || l.notice == nil {
			return true, fmt.Errorf("%w: notice out of turn or in parts", errFrame)
		}
		return true, l.notice(f.body)
	case kindCancel:
		return true, l.takeCancel(f.id)
	case kindCall:
		if l.serve != nil {
			return l.assemble(f)
		}
	case kindReply, kindFailure:
		return l.assemble(f)
	}
	return true, fmt.Errorf("%w: kind %d out of turn", errFrame, f.kind)
}

// takeCancel ends a call that the other end gave up. It may be over by now, but
// there are only so many of them to be given up, each twice at most.
func (l *link) takeCancel(id uint32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.serving[id]; s != nil {
		s.end(context.Canceled)
	}
	if l.cancels--; l.guarded && l.cancels < 0 {
		return fmt.Errorf("%w: more cancels than there were calls", errFrame)
	}
	return nil
}

// assemble collects the frames of one message and passes it on when whole.
func (l *link) assemble(f frame) (mine bool, err error) {
	l.mu.Lock()
	whole, err := l.joinLocked(&f)
	if err != nil || !whole {
		l.mu.Unlock()
		return true, err
	}
	if f.kind == kindCall {
		j, err := l.acceptLocked(f)
		l.mu.Unlock()
		if err != nil {
			return true, err
		}
		if !l.guarded && !l.inside && l.turn.slow.Load() < slow {
			return l.workInTurn(j), nil
		}
		l.hand(j)
		return true, nil
	}
	done := l.pending[f.id].done
	delete(l.pending, f.id)
	l.mu.Unlock()
	switch {
	case done == nil: // the caller gave up
	case f.kind == kindFailure:
		done(outcome{err: decodeFailure(f.body)})
	default:
		done(outcome{data: f.body})
	}
	return true, nil
}

// joinLocked adds a frame to its message; the last one takes the whole body.
func (l *link) joinLocked(f *frame) (whole bool, err error) {
	if _, waiting := l.pending[f.id]; f.kind != kindCall && !waiting {
		return false, fmt.Errorf("%w: answer to call %d, which nobody made", errFrame, f.id)
	}
	key := partKey{f.kind, f.id}
	part, partial := l.parts[key]
	if !partial && !f.more {
		return true, nil
	}
	if !partial && len(l.parts) >= maxLong {
		return false, fmt.Errorf("%w: call %d is the beginning of one long message too many", errFrame, f.id)
	}
	if l.held += len(f.body); len(f.body) == 0 || l.held > maxLong*MaxMessage || len(part)+len(f.body) > MaxMessage {
		return false, fmt.Errorf("%w: message of call %d is too large", errFrame, f.id)
	}
	part = append(part, f.body...)
	if f.more {
		l.parts[key] = part
		return false, nil
	}
	delete(l.parts, key)
	l.held -= len(part)
	f.body = part
	return true, nil
}

// job is a call of the other end.
type job struct {
	s    *serving
	f    frame
	over bool // it is refused, for there are too many bytes of others
}

// acceptLocked takes a call of the other end.
func (l *link) acceptLocked(f frame) (job, error) {
	if _, taken := l.serving[f.id]; taken || f.id == 0 || len(f.body) == 0 || l.working >= 2*maxCalls || l.err != nil {
		return job{}, fmt.Errorf("%w: call %d", errFrame, f.id)
	}
	j := job{s: &serving{}, f: f}
	if l.guarded && l.asked+len(f.body) > maxAsked {
		j.f.body, j.over = nil, true
	}
	l.asked += len(j.f.body)
	l.serving[f.id] = j.s
	l.working++
	l.cancels += 2
	return j, nil
}

// maxFree is how many workers may wait for jobs. They keep their stacks, which
// engines make large.
const maxFree = 32

// hand gives a job to a worker that is free, or to a new one.
func (l *link) hand(j job) {
	select {
	case l.jobs <- j:
	default:
		l.wg.Go(func() { l.work(j) })
	}
}

// work does a job, and others that come, until enough workers are free.
func (l *link) work(j job) {
	for {
		l.answer(j, true)
		if l.free.Add(1) > maxFree {
			l.free.Add(-1)
			return
		}
		select {
		case j = <-l.jobs:
			l.free.Add(-1)
		case <-l.done:
			return
		}
	}
}

func (l *link) do(j job) (head, reply []byte, err error) {
	if j.over {
		return nil, nil, nex.Errorf(nex.Overloaded, "%d bytes of host calls are under way", maxAsked)
	}
	return l.serve(j.s, method(j.f.body[0]), j.f.body[1:])
}

// answer does what a call of the other end asks for and sends what came of it:
// at once, or by the reader when it has worked on what else came.
func (l *link) answer(j job, now bool) {
	f := j.f
	j.s.began = time.Now()
	head, reply, err := l.do(j)
	l.mu.Lock()
	delete(l.serving, f.id) // its id may come again once the answer is out
	how := soon
	if l.working == 1 {
		how = atOnce
	}
	if l.guarded && l.owed+len(reply) > maxOwed {
		reply, err = nil, nex.Errorf(nex.Overloaded, "%d bytes of answers wait to be taken", l.owed)
	}
	owed := len(reply)
	l.owed += owed
	l.mu.Unlock()
	if !now {
		how = later
	}
	l.turn.judge((time.Since(j.s.began) - j.s.waited) / time.Duration(j.s.waits+1))
	j.s.end(context.Canceled)
	k := kindReply
	if err != nil {
		k, head, reply = kindFailure, nil, encodeFailure(err)
	}
	if err := l.send(context.Background(), k, f.id, head, reply, how); err != nil && l.cause() == nil {
		// The answer is too large to send; the caller still gets one.
		_ = l.send(context.Background(), kindFailure, f.id, nil, encodeFailure(err), how) // fails only when the link ends
	}
	l.mu.Lock()
	l.working--
	l.asked -= len(f.body)
	l.owed -= owed
	l.mu.Unlock()
}
