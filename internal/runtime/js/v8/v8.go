//go:build v8 && linux && (amd64 || arm64)

package v8

// #cgo CXXFLAGS: -std=c++20 -fno-rtti -fno-exceptions -Wall -Wextra -Wno-unused-parameter
// #cgo CXXFLAGS: -DV8_COMPRESS_POINTERS -DV8_31BIT_SMIS_ON_64BIT_ARCH -DV8_ENABLE_SANDBOX
// #cgo noescape nex_load
// #cgo noescape nex_call
// #cgo noescape nex_resume
// #include "binding.h"
import "C"

import (
	"context"
	_ "embed"
	"sync"
	"sync/atomic"
	"unsafe"

	"nex"
	"nex/internal/runtime/js"
)

//go:embed guard.js
var guard string

// maxIsolates is how many isolates a process may have. V8 ends the process when
// the address space that they share is full, well above that.
const maxIsolates = 1000

// maxHeaps is how many bytes the heaps of all isolates may take before no more
// isolates are made and those that come back are freed. V8 ends the process at
// 4 GiB, and heaps that are over their limits need room until their code stops.
const maxHeaps = 2500 << 20

// isolates is how many there are.
var isolates atomic.Int32

// heaps is how many bytes their heaps take, kept by V8's threads.
var heaps *uint64

var start = sync.OnceValue(func() error {
	parts, err := js.Library()
	if err != nil {
		return err
	}
	for _, p := range parts {
		name, nameSize := pass(p.Name)
		file, fileSize := pass(p.File)
		code, codeSize := pass(p.Code)
		C.nex_add(name, nameSize, file, fileSize, code, codeSize)
	}
	g, guardSize := pass(guard)
	p, preludeSize := pass(js.Prelude)
	C.nex_start(g, guardSize, p, preludeSize)
	heaps = (*uint64)(unsafe.Pointer(C.nex_heaps()))
	return nil
})

// Engine makes V8 isolates. Safe for concurrent use.
type Engine struct {
	watchdog watchdog
	maxHeaps uint64
}

var (
	_ js.Engine  = (*Engine)(nil)
	_ js.Isolate = (*isolate)(nil)
)

// New starts V8 in this process, where it then stays.
func New() (*Engine, error) {
	if err := start(); err != nil {
		return nil, err
	}
	return &Engine{maxHeaps: maxHeaps}, nil
}

// minMemory is what an isolate needs to come up, in bytes.
const minMemory = 1 << 20

// full reports whether the heaps take too much of what they share.
func (e *Engine) full() bool { return atomic.LoadUint64(heaps) > e.maxHeaps }

// New implements [js.Engine]. It is Exhausted when there are as many isolates
// as one process may have, or when their heaps take too much.
func (e *Engine) New(ctx context.Context, s js.Source) (js.Isolate, error) {
	if s.Memory < minMemory || int64(len(s.Code)) > s.Memory { // nothing stops V8 while it reads code
		return nil, js.ErrMemory
	}
	if e.full() {
		return nil, nex.Errorf(nex.Exhausted, "the JavaScript functions of this agent use %d MiB together, and there is no room for more", atomic.LoadUint64(heaps)>>20)
	}
	if n := isolates.Add(1); n > maxIsolates {
		isolates.Add(-1)
		return nil, nex.Errorf(nex.Exhausted, "%d JavaScript isolates are all that one agent can have", maxIsolates)
	}
	i := newIsolate(e, s)
	if err := i.load(ctx, s); err != nil {
		i.Close()
		return nil, err
	}
	return i, nil
}
