package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
)

func (l *link) read() {
	for {
		f, err := readFrame(l.r)
		if err == nil {
			err = l.take(f)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errEnded
			}
			l.fail(err)
			return
		}
	}
}

// take handles one frame; an error ends the link.
func (l *link) take(f frame) error {
	switch f.kind {
	case kindNotice:
		if f.more || f.id != 0 || l.notice == nil {
			return fmt.Errorf("%w: notice out of turn or in parts", errFrame)
		}
		return l.notice(f.body)
	case kindCancel:
		l.mu.Lock()
		defer l.mu.Unlock()
		if cancel := l.serving[f.id]; cancel != nil {
			cancel()
		}
		return nil
	case kindCall:
		if l.serve != nil {
			return l.assemble(f)
		}
	case kindReply, kindFailure:
		return l.assemble(f)
	}
	return fmt.Errorf("%w: kind %d out of turn", errFrame, f.kind)
}

// assemble collects the frames of one message and passes it on when whole.
func (l *link) assemble(f frame) error {
	l.mu.Lock()
	whole, err := l.joinLocked(&f)
	if err != nil || !whole {
		l.mu.Unlock()
		return err
	}
	if f.kind == kindCall {
		j, err := l.acceptLocked(f)
		l.mu.Unlock()
		if err == nil {
			l.hand(j)
		}
		return err
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
	return nil
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
	ctx context.Context
	f   frame
}

// acceptLocked takes a call of the other end.
func (l *link) acceptLocked(f frame) (job, error) {
	if _, taken := l.serving[f.id]; taken || f.id == 0 || len(f.body) == 0 || l.working >= 2*maxCalls || l.err != nil {
		return job{}, fmt.Errorf("%w: call %d", errFrame, f.id)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.serving[f.id] = cancel
	l.working++
	return job{ctx, f}, nil
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
		l.answer(j.ctx, j.f)
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

// answer does what a call of the other end asks for and sends what came of it.
func (l *link) answer(ctx context.Context, f frame) {
	head, reply, err := l.serve(ctx, method(f.body[0]), f.body[1:])
	l.mu.Lock()
	cancel := l.serving[f.id]
	delete(l.serving, f.id) // its id may come again once the answer is out
	hurry := l.working == 1
	l.mu.Unlock()
	cancel()
	k := kindReply
	if err != nil {
		k, head, reply = kindFailure, nil, encodeFailure(err)
	}
	if err := l.send(context.Background(), k, f.id, head, reply, hurry); err != nil && l.cause() == nil {
		// The answer is too large to send; the caller still gets one.
		_ = l.send(context.Background(), kindFailure, f.id, nil, encodeFailure(err), hurry) // fails only when the link ends
	}
	l.mu.Lock()
	l.working--
	l.mu.Unlock()
}
