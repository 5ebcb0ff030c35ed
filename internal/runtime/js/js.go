// Package js runs JavaScript functions. It owns everything that is the same
// for every engine: the options, the prelude that each isolate evaluates
// first, the rules of which values are functions and replies, the pool of warm
// isolates, and how failures read. The engines live in the packages below it
// and implement [Engine] and [Isolate].
//
// A function's script is evaluated once per isolate and stays warm between
// calls; several isolates may serve one function, so globals are a cache and
// never storage. Nothing in this package starts a goroutine, but a timer frees
// isolates that nobody needs any more. User code gets no access to files, to the network or to the process.
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

// Isolate is one warm instance of a script. It serves one call at a time and
// may change goroutines between calls.
type Isolate interface {
	// Call runs the function once and returns its reply. When ctx ends, the
	// code is stopped, whatever it does, and the error is ErrStopped. The
	// other errors are ErrMemory, ErrNeverSettles, a *Thrown, and a
	// *ReplyError; any other error or a panic is a defect of the engine.
	Call(ctx context.Context, c Call) (runtime.Reply, error)
	// Usable reports whether the isolate may serve another call. It is false
	// after a call that panicked, was stopped or met the memory limit, and
	// while the engine is short of memory for all its isolates.
	Usable() bool
	// Close frees everything, also after a panic in Call. The isolate must
	// not be used afterwards.
	Close()
}

// Source is what an engine makes an isolate from. It is read only.
type Source struct {
	Name   string // the file name that errors show
	Code   []byte // a classic script or a module, in UTF-8
	Info   string // the second argument of the prelude's function
	Memory int64  // bytes that the isolate may have allocated at any time
	// Print takes what the script prints, at an slog level.
	Print func(level int, text string)
	// Host answers what the script asks of host services. Nil if there are none.
	Host runtime.Host
}

// Call is one message for the function, in the form engines pass on.
type Call struct {
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
