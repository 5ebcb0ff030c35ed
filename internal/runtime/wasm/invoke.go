package wasm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tetratelabs/wazero/sys"

	"nex"
	"nex/internal/runtime"
)

// Invoke implements [runtime.Function]. It waits for a free instance as long
// as ctx allows.
func (f *Function) Invoke(ctx context.Context, t runtime.Trigger) (runtime.Reply, error) {
	began := time.Now()
	i, err := f.pool.take(ctx)
	if err != nil {
		return runtime.Reply{}, err
	}
	defer f.pool.give(i)
	i.begin(t)
	err = i.under(ctx, func() error {
		if f.reactor {
			return i.react(t)
		}
		return i.run()
	})
	reply := i.end()

	why := i.why()
	switch {
	case why != nil && !errors.Is(why, errStopped):
		return runtime.Reply{}, why
	case err == nil:
		return reply, nil
	case why != nil:
		return runtime.Reply{}, nex.Errorf(nex.Timeout, "the function was stopped after %s without a reply",
			time.Since(began).Round(time.Millisecond))
	}
	return runtime.Reply{}, f.failure(err, i)
}

// renew makes an instance fit for another call, and returns nil when there is
// no way. One that cannot be reset is replaced by a new one, off the way of
// the next call.
func (f *Function) renew(i *instance) *instance {
	if f.reactor {
		if i.why() == nil && !i.broken {
			return i
		}
		i.close()
		return nil
	}
	if !i.broken && i.reset() {
		return i
	}
	i.close()
	if f.prepared.resets {
		return nil // rare: the next call that finds none idle makes one
	}
	fresh, err := f.instantiate()
	if err != nil {
		return nil // and is told why
	}
	return fresh
}

// failure turns the way a call ended into the error for the caller: one line.
// A stack trace goes to the log.
func (f *Function) failure(err error, i *instance) error {
	if _, ok := errors.AsType[*nex.Error](err); ok {
		return err
	}
	reason := firstLine(err)
	if exit, ok := errors.AsType[*sys.ExitError](err); ok {
		reason = fmt.Sprintf("exit status %d", exit.ExitCode())
		i.broken = f.reactor
	} else {
		i.broken = true
		f.log(slog.LevelError, err.Error())
	}
	if i.stderr.last != "" {
		reason += ": " + i.stderr.last
	}
	if i.memory.refused {
		return nex.Errorf(nex.OutOfMemory, "out of memory (limit %s): %s", mebibytes(f.memory), reason)
	}
	return nex.Errorf(nex.Exception, "%s", reason)
}
