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
	defer l.mu.Unlock()
	if _, waiting := l.pending[f.id]; f.kind != kindCall && !waiting {
		return fmt.Errorf("%w: answer to call %d, which nobody made", errFrame, f.id)
	}
	key := partKey{f.kind, f.id}
	part, partial := l.parts[key]
	if partial || f.more {
		if l.held += len(f.body); len(f.body) == 0 || l.held > maxLong*MaxMessage || len(part)+len(f.body) > MaxMessage {
			return fmt.Errorf("%w: message of call %d is too large", errFrame, f.id)
		}
		part = append(part, f.body...)
		if f.more {
			l.parts[key] = part
			return nil
		}
		delete(l.parts, key)
		l.held -= len(part)
		f.body = part
	}
	if f.kind == kindCall {
		return l.acceptLocked(f)
	}
	c := l.pending[f.id]
	delete(l.pending, f.id)
	if c.hung != nil {
		c.hung.Stop()
	}
	a := outcome{data: f.body}
	if f.kind == kindFailure {
		a = outcome{err: decodeFailure(f.body)}
	}
	c.reply <- a
	return nil
}

// acceptLocked serves a call of the other end.
func (l *link) acceptLocked(f frame) error {
	if _, taken := l.serving[f.id]; taken || f.id == 0 || len(f.body) == 0 || l.working >= 2*maxCalls || l.err != nil {
		return fmt.Errorf("%w: call %d", errFrame, f.id)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.serving[f.id] = cancel
	l.working++
	l.wg.Go(func() {
		l.answer(ctx, f)
		cancel()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.working--
	})
	return nil
}

// answer runs one call of the other end and sends what came of it.
func (l *link) answer(ctx context.Context, f frame) {
	head, reply, err := l.serve(ctx, method(f.body[0]), f.body[1:])
	l.mu.Lock()
	delete(l.serving, f.id) // its id may come again once the answer is out
	l.mu.Unlock()
	k := kindReply
	if err != nil {
		k, head, reply = kindFailure, nil, encodeFailure(err)
	}
	if err := l.send(context.Background(), k, f.id, head, reply); err != nil && l.cause() == nil {
		// The answer is too large to send; the caller still gets one.
		_ = l.send(context.Background(), kindFailure, f.id, nil, encodeFailure(err)) // fails only when the link ends
	}
}
