// Package js runs JavaScript functions. It owns everything that is the same
// for every engine: the options, the prelude that each isolate evaluates
// first, the rules of which values are functions and replies, the pool of warm
// isolates, and how failures read. The engines live in the packages below it
// and implement [Engine] and [Isolate].
//
// A function's script is evaluated once per isolate and stays warm between
// calls; several isolates may serve one function, so globals are a cache and
// never storage. A call that waits lets others have its isolate meanwhile. Nothing
// in this package starts a goroutine but host calls, and timers that free isolates
// and have calls go on. User code gets no access to files, to the network or to the process.
package js

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"

	"nex/internal/runtime"
)

// PreludeName is the file name under which an engine evaluates [Prelude]. The
// prelude hides its own frames from stacks by this name.
const PreludeName = "nex:prelude"

// Prelude is the script that an isolate evaluates before the user's. Its
// value is a function of (host, info) that returns the object whose functions
// the engine calls; the head of prelude.js says what each of them does.
//
//go:embed prelude.js
var Prelude string

// Engine makes isolates. Implementations are safe for concurrent use.
type Engine interface {
	// New makes an isolate, evaluates the prelude and then the script in it,
	// and returns it ready for calls. The evaluation stops when ctx ends. Its
	// errors are those of [Isolate.Call]; without an isolate nothing is left
	// to free.
	New(ctx context.Context, s Source) (Isolate, error)
}

// Isolate is one warm instance of a script. Several calls may be in it, but
// code of one runs at a time: that call has the turn. The others wait, for a
// timer or a host service. An isolate may change goroutines between turns.
type Isolate interface {
	// Call runs the function once, until there is a reply or the call must
	// wait. When ctx ends, the code is stopped, whatever it does, and the error
	// is ErrStopped. The other errors are ErrMemory, ErrNeverSettles, a *Thrown,
	// and a *ReplyError; any other error or a panic is a defect of the engine.
	// What the step says of other calls is also true with an error.
	Call(ctx context.Context, c Call) (Step, error)
	// Resume goes on with a call that waits, as Call does.
	Resume(ctx context.Context, t Turn) (Step, error)
	// Usable reports whether the isolate may serve another call. It is false
	// after a call that panicked, was stopped or met the memory limit, and
	// while the engine is short of memory for all its isolates. After those
	// errors and that panic, the calls that wait in it cannot go on either.
	Usable() bool
	// Close frees everything, also after a panic in Call, and whatever calls
	// wait. The isolate must not be used afterwards.
	Close()
}

// MaxCalls is how many calls may be in one isolate.
const MaxCalls = 64

// Turn is a time in which code of an isolate runs.
type Turn struct {
	Slot   int    // of the call that has it: below MaxCalls, and its own until it ends
	Others uint64 // the slots of the calls that wait, a bit for each
	// Any says that what is due is done also where it was begun in the turn of
	// another call. Else that is left to a turn of that.
	Any bool
}

// Step is how a turn ended.
type Step struct {
	runtime.Reply
	Waits bool   // there is no reply yet
	Ready uint64 // the slots of other calls that can go on now
	// Next is how many milliseconds go by until there is something to do, in the
	// turn of For, unless Source.Wake tells of it sooner. Where there is nothing
	// to wait for it is negative; then Resume says of each call that its promise
	// never settles.
	Next int
	For  int // a slot, maybe of a call that has ended
	// Crowded says that more calls had better not come to those that wait, for
	// they share its memory: a good part of that is in use.
	Crowded bool
}

// Source is what an engine makes an isolate from. It is read only.
type Source struct {
	Name   string // the file name that errors show
	Code   []byte // a classic script or a module, in UTF-8
	Info   string // the second argument of the prelude's function
	Memory int64  // bytes that the isolate may have allocated at any time
	// Print takes what the script prints, at an slog level.
	Print func(level int, text string)
	// Wake is told, on any goroutine, when there may be something to do in the
	// turn of the call in that slot. Nil if nobody wants to know.
	Wake func(slot int)
	// Host answers what the script asks of host services. Nil if there are none.
	Host runtime.Host
}

// Call is one message for the function, in the form engines pass on.
type Call struct {
	Turn
	Subject  string
	Reply    string  // the reply subject, "" when nobody waits
	Header   string  // a JSON object of arrays of strings, or ""
	Deadline float64 // milliseconds since 1970, +Inf for none
	Payload  []byte  // the engine copies it
}

// Header reads the headers of a reply, which the prelude writes as JSON.
func Header(text string) (map[string][]string, error) {
	var header map[string][]string
	if err := json.Unmarshal([]byte(text), &header); err != nil {
		return nil, fmt.Errorf("read the headers of a reply: %w", err)
	}
	return header, nil
}

// Reasons why a call or an evaluation ended without a value.
var (
	ErrStopped      = errors.New("stopped because its context ended")
	ErrMemory       = errors.New("out of memory")
	ErrNeverSettles = errors.New("promise never settles")
)

// Thrown is what user code threw, as the prelude explains it.
type Thrown struct {
	Message string // as in "TypeError: x is not a function"
	Where   string // as in "echo.js:3:7", or ""
	Stack   string // one frame a line, or ""
}

// Error returns the message alone.
func (t *Thrown) Error() string { return t.Message }

// ReplyError tells why a value has no reply form.
type ReplyError struct {
	Why string
}

func (e *ReplyError) Error() string { return "the function's value cannot be a reply: " + e.Why }
