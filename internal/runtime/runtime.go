// Package runtime is the vocabulary between the agent and the engines that run
// user code: what a call is, what a function and a service can do, how they
// log and fail. The engines live in the packages below it; each of them builds
// values that are ready to use, or returns an error.
//
// Failures of user code are [nex.Error] values with the codes Timeout,
// Exception, OutOfMemory and BadReply; anything else an engine returns is a
// defect of the engine and reaches the caller as Internal.
package runtime

import (
	"context"
	"fmt"
	"log/slog"
)

// DefaultMemory is the memory one function instance may use when its deploy
// request does not say, in bytes.
const DefaultMemory = 128 << 20

// Trigger is one message for a function.
type Trigger struct {
	Subject string              // the concrete subject the message came on
	Reply   string              // the reply subject, "" when nobody waits for an answer
	Header  map[string][]string // the message's headers, may be nil
	Payload []byte              // owned by the callee until Invoke returns
}

// Reply is what a function answers.
type Reply struct {
	Header  map[string][]string // nil for none
	Payload []byte
}

// Function is loaded user code that answers triggers.
type Function interface {
	// Invoke runs the function once and returns its reply. When ctx ends the
	// code is really stopped, and Invoke returns a Timeout error soon after.
	// Safe for concurrent use.
	Invoke(ctx context.Context, t Trigger) (Reply, error)
	// Close waits for running calls, bounded by ctx, and frees the engine's
	// resources. No Invoke may start after Close began.
	Close(ctx context.Context) error
}

// Service is a long-running workload that has started.
type Service interface {
	// Wait blocks until the service is gone, with everything it started, or
	// ctx ends. Its error is ctx's alone. Safe for concurrent use.
	Wait(ctx context.Context) (Exit, error)
	// Stop asks the service to end, kills what is left after its grace
	// period, and returns when all of it is gone. Idempotent.
	Stop(ctx context.Context) error
}

// Exit tells how a service ended.
type Exit struct {
	Code   int    // exit status; -1 when a signal ended it
	Signal string // name of that signal, as in "killed"; else ""
	// TooLarge says that it was the signal of a file that grew over its limit.
	TooLarge bool
}

func (e Exit) String() string {
	if e.Signal != "" {
		return "signal: " + e.Signal
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// Log receives what user code prints, one record a call. Implementations are
// safe for concurrent use and may block to slow the writer down.
type Log func(level slog.Level, text string)
