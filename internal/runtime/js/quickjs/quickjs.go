// Package quickjs is the JavaScript engine in pure Go: QuickJS, translated
// from C to Go by modernc.org/libquickjs, behind the interfaces of package js.
// It runs on every platform Go builds for and starts an isolate in well under
// a millisecond.
//
// An isolate has a memory allocator of its own, which counts what is
// allocated, refuses what passes the limit, and gives everything back at once,
// also when the engine was abandoned in the middle of a call. Its code runs on
// the goroutine of the caller, one call at a time, on any goroutine; only when
// a call's context ends does a second goroutine run, which hurries the
// engine's interrupt and ends with the call. The package never exposes the
// modules std and os of QuickJS, or any other way out of the isolate.
//
// Native functions that walk over array-likes of absurd length without
// allocating, as in Array.prototype.indexOf.call({length: 2**53}, 1), cannot be
// interrupted before they return.
package quickjs

import (
	"context"
	"fmt"

	lib "modernc.org/libquickjs"

	"nex/internal/runtime/js"
)

// Engine makes QuickJS isolates. Safe for concurrent use.
type Engine struct {
	prelude []byte            // compiled, read only
	library map[string][]byte // its parts by name, compiled, read only
}

var (
	_ js.Engine  = (*Engine)(nil)
	_ js.Isolate = (*isolate)(nil)
)

const (
	// minMemory is what an isolate needs to come up, and some, in bytes. With
	// less, the engine crashes where it does not expect a refusal.
	minMemory = 1 << 20
	// compileMemory is what compiling the prelude may use, in bytes.
	compileMemory = 16 << 20
)

// New compiles the prelude, which every isolate then only has to run. Its
// errors are defects of the build.
func New() (*Engine, error) {
	i, err := newIsolate(js.Source{Memory: compileMemory})
	if err != nil {
		return nil, err
	}
	defer i.Close()
	lib.XJS_SetStripInfo(i.tls, i.rt, lib.MJS_STRIP_SOURCE) // three quarters of the bytecode, for toString alone
	prelude, err := i.compileOwn(js.PreludeName, js.Prelude)
	if err != nil {
		return nil, fmt.Errorf("compile the prelude: %w", err)
	}
	parts, err := js.Library()
	if err != nil {
		return nil, err
	}
	library := map[string][]byte{}
	for _, p := range parts {
		if library[p.Name], err = i.compileOwn(p.File, p.Code); err != nil {
			return nil, fmt.Errorf("compile %s: %w", p.File, err)
		}
	}
	return &Engine{prelude: prelude, library: library}, nil
}

// New implements [js.Engine]. A memory limit below 1 MiB is js.ErrMemory.
func (e *Engine) New(ctx context.Context, s js.Source) (js.Isolate, error) {
	if s.Memory < minMemory {
		return nil, js.ErrMemory
	}
	i, err := newIsolate(s)
	if err != nil {
		return nil, err
	}
	ready := false
	defer func() {
		if !ready {
			i.Close()
		}
	}()
	i.library = e.library
	if err := i.load(ctx, e.prelude, s); err != nil {
		return nil, err
	}
	i.heap.trim()
	ready = true
	return i, nil
}
