package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"nex"
	"nex/internal/runtime"
)

// program is argv[0] of every command.
const program = "nexfunction"

// Invoke implements [runtime.Function]: one fresh instance, thrown away at the
// end. It waits for a free slot as long as ctx allows.
func (f *Function) Invoke(ctx context.Context, t runtime.Trigger) ([]byte, error) {
	began := time.Now()
	ctx, ticket, err := f.gate.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer f.gate.leave(ticket)

	c := call{
		memory: memory{limit: f.memory},
		reply:  reply{stop: ticket.stop},
		stderr: lines{log: f.log},
	}
	err = f.run(ctx, t, &c)
	c.stderr.flush()

	var cause *nex.Error
	switch {
	case errors.As(context.Cause(ctx), &cause):
		return nil, cause
	case err == nil:
		return c.reply.buf.Bytes(), nil
	case ctx.Err() != nil:
		return nil, nex.Errorf(nex.Timeout, "the function was stopped after %s without a reply",
			time.Since(began).Round(time.Millisecond))
	}
	return nil, f.failure(err, &c)
}

// call is what one instance writes and uses.
type call struct {
	memory memory
	reply  reply
	stderr lines
}

// run executes the command to its end. Exit status 0 is a nil error.
func (f *Function) run(ctx context.Context, t runtime.Trigger, c *call) error {
	config := f.config.
		WithArgs(program, t.Subject).
		WithStdin(bytes.NewReader(t.Payload)).
		WithStdout(&c.reply).
		WithStderr(&c.stderr).
		WithNanosleep(sleeper(ctx))
	ctx = experimental.WithMemoryAllocator(ctx, &c.memory)
	instance, err := f.engine.InstantiateModule(ctx, f.module, config)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	_, err = instance.ExportedFunction("_start").Call(ctx)
	if exit, ok := errors.AsType[*sys.ExitError](err); ok && exit.ExitCode() == 0 {
		err = nil
	}
	return errors.Join(err, instance.Close(context.WithoutCancel(ctx)))
}

// failure turns the way a command ended into the error for the caller: one
// line. A stack trace goes to the log.
func (f *Function) failure(err error, c *call) error {
	reason := firstLine(err)
	if exit, ok := errors.AsType[*sys.ExitError](err); ok {
		reason = fmt.Sprintf("exit status %d", exit.ExitCode())
	} else {
		f.log(slog.LevelError, err.Error())
	}
	if c.stderr.last != "" {
		reason += ": " + c.stderr.last
	}
	if c.memory.refused {
		return nex.Errorf(nex.OutOfMemory, "out of memory (limit %s): %s", mebibytes(f.memory), reason)
	}
	return nex.Errorf(nex.Exception, "%s", reason)
}

// sleeper returns a nanosleep that ends early when ctx ends, so that a
// sleeping command can be stopped.
func sleeper(ctx context.Context) sys.Nanosleep {
	return func(ns int64) {
		timer := time.NewTimer(time.Duration(ns))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}
