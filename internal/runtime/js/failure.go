package js

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"nex"
)

// maxText is how many bytes of one text of user code are passed on.
const maxText = 64 << 10

// errPanic marks a panic in the engine or in what it called.
type errPanic struct{ value any }

func (e errPanic) Error() string { return fmt.Sprintf("the engine panicked: %v", e.value) }

// recoverInto turns a panic into an error.
func recoverInto(err *error) {
	if v := recover(); v != nil {
		*err = errPanic{v}
	}
}

// failure turns the error of a call into the error its caller gets, and logs
// what user code threw.
func (f *Function) failure(ctx context.Context, start time.Time, err error) error {
	var thrown *Thrown
	var reply *ReplyError
	switch {
	case nex.CodeOf(err) != nex.Internal:
		return err
	case errors.Is(err, ErrMemory):
		return f.outOfMemory()
	case errors.Is(err, ErrStopped), ctx.Err() != nil: // then it may have ended by itself just before it was stopped
		return f.timeout(ctx, start)
	case errors.Is(err, ErrNeverSettles):
		f.log(slog.LevelError, err.Error())
		return nex.Errorf(nex.Exception, "%v", err)
	case errors.As(err, &thrown):
		f.log(slog.LevelError, clip(thrown.report()))
		return nex.Errorf(nex.Exception, "%s", clip(thrown.Message))
	case errors.As(err, &reply):
		return nex.Errorf(nex.BadReply, "%s", clip(reply.Error()))
	default:
		return nex.Errorf(nex.Internal, "call the function: %v", err)
	}
}

// refusal turns the error of a script's evaluation into the one line that
// says why it cannot be loaded.
func (f *Function) refusal(name string, start time.Time, err error) error {
	var thrown *Thrown
	switch {
	case errors.As(err, &thrown):
		where := thrown.Where
		if where == "" {
			where = name
		}
		return nex.Errorf(nex.Invalid, "%s: %s", where, oneLine(clip(thrown.Message)))
	case errors.Is(err, ErrNeverSettles):
		return nex.Errorf(nex.Invalid, "%s: the module awaits a promise that never settles", name)
	case errors.Is(err, ErrStopped):
		return nex.Errorf(nex.Timeout, "%s: the script was stopped after %d ms of evaluation", name, since(start))
	case errors.Is(err, ErrMemory):
		return nex.Errorf(nex.OutOfMemory, "%s: %v", name, f.outOfMemory())
	default:
		return fmt.Errorf("load %s: %w", name, err)
	}
}

func (f *Function) timeout(ctx context.Context, start time.Time) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return nex.Errorf(nex.Timeout, "function stopped after %d ms: the call was cancelled", since(start))
	}
	return nex.Errorf(nex.Timeout, "function stopped after %d ms", since(start))
}

func (f *Function) outOfMemory() error {
	return nex.Errorf(nex.OutOfMemory, "function passed its memory limit of %d bytes", f.memory)
}

// report is the text of t for the log: where, what and how the code got there.
func (t *Thrown) report() string {
	text := t.Message
	if t.Where != "" {
		text = t.Where + ": " + text
	}
	if t.Stack != "" {
		text += "\n" + t.Stack
	}
	return text
}

func since(start time.Time) int64 { return time.Since(start).Milliseconds() }

// clip cuts text to maxText bytes, at a character, and marks the cut.
func clip(text string) string {
	if len(text) <= maxText {
		return text
	}
	const mark = "…"
	end := maxText - len(mark)
	for n := 0; n < utf8.UTFMax && !utf8.RuneStart(text[end]); n++ {
		end--
	}
	return text[:end] + mark
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
