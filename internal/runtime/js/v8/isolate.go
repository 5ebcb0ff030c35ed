//go:build v8 && linux && (amd64 || arm64)

package v8

// #include "binding.h"
import "C"

import (
	"bytes"
	"context"
	"fmt"
	"runtime/cgo"
	"strings"
	"sync"
	"unsafe"

	"nex/internal/runtime/js"
)

// isolate implements [js.Isolate].
type isolate struct {
	engine *Engine
	handle cgo.Handle // of itself, for nexPrint
	native *C.nex_isolate
	print  func(level int, text string)
	helper *js.Helper

	busy     bool // code runs, or panicked
	worn     bool // it was stopped or met the memory limit
	panicked any  // what print panicked with

	mu      sync.Mutex
	ctx     context.Context // while code runs; guarded by mu
	stopped bool            // the code was told to stop; guarded by mu
}

func newIsolate(e *Engine, s js.Source) *isolate {
	i := &isolate{engine: e, print: s.Print, helper: js.NewHelper(s)}
	i.handle = cgo.NewHandle(i)
	i.native = C.nex_new(C.uintptr_t(i.handle), C.size_t(s.Memory))
	e.watchdog.add(i)
	return i
}

// Usable implements [js.Isolate].
func (i *isolate) Usable() bool { return !i.busy && !i.worn && !i.engine.full() }

// Close implements [js.Isolate].
func (i *isolate) Close() {
	i.engine.watchdog.remove(i)
	i.helper.Close()
	C.nex_free(i.native)
	i.handle.Delete()
	isolates.Add(-1)
}

// Call implements [js.Isolate].
func (i *isolate) Call(ctx context.Context, c js.Call) (js.Step, error) {
	subject, subjectSize := pass(c.Subject)
	reply, replySize := pass(c.Reply)
	header, headerSize := pass(c.Header)
	data, dataSize := pass(unsafe.String(unsafe.SliceData(c.Payload), len(c.Payload)))
	i.helper.Join(&c)
	i.enter(ctx)
	r := C.nex_call(i.native, C.int(c.Slot), C.uint64_t(c.Others), subject, subjectSize, reply, replySize, header, headerSize, C.double(c.Deadline), data, dataSize)
	return i.step(c.Turn, &r)
}

// Resume implements [js.Isolate].
func (i *isolate) Resume(ctx context.Context, t js.Turn) (js.Step, error) {
	any := C.int(0)
	if t.Any {
		any = 1
	}
	i.helper.Turn(t)
	i.enter(ctx)
	r := C.nex_resume(i.native, C.int(t.Slot), C.uint64_t(t.Others), any)
	return i.step(t, &r)
}

// step ends a turn and says how it ended.
func (i *isolate) step(t js.Turn, r *C.nex_result) (s js.Step, err error) {
	if err = i.leave(*r); r.status == C.nex_wait || t.Others != 0 {
		s.Ready, s.Next, s.For, s.Crowded = uint64(r.ready), int(r.wait), int(r.next), r.crowded != 0
		if slot, ok := i.helper.Came(); ok {
			s.Next, s.For = 0, slot
		}
	} else {
		i.helper.Drop()
	}
	if err != nil {
		return s, err
	}
	if s.Waits = r.status == C.nex_wait; s.Waits {
		return s, nil
	}
	s.Payload = C.GoBytes(unsafe.Pointer(r.value.data), C.int(r.value.size))
	if r.header.size != 0 {
		s.Header, err = js.Header(C.GoStringN(r.header.data, C.int(r.header.size)))
	}
	return s, err
}

// mayBeModule reports whether code has what every module contains. It may have
// that in strings and comments, so this only decides whether there is a second
// try.
func mayBeModule(code []byte) bool {
	return bytes.Contains(code, []byte("import")) || bytes.Contains(code, []byte("export"))
}

// load evaluates the prelude and the script, until ctx ends.
func (i *isolate) load(ctx context.Context, s js.Source) error {
	info, infoSize := pass(s.Info)
	name, nameSize := pass(s.Name)
	code, codeSize := pass(unsafe.String(unsafe.SliceData(s.Code), len(s.Code)))
	module := C.int(0)
	if mayBeModule(s.Code) {
		module = 1
	}
	i.enter(ctx)
	r := C.nex_load(i.native, info, infoSize, name, nameSize, code, codeSize, module)
	for r.status == C.nex_wait {
		if err := i.leave(r); err != nil {
			return err
		}
		if !i.helper.Wait(ctx, int(r.wait)) {
			return js.ErrStopped
		}
		i.enter(ctx)
		r = C.nex_resume(i.native, 0, 0, 0)
	}
	return i.leave(r)
}

// pass returns the bytes of text as C takes them. They stay Go's.
func pass(text string) (*C.char, C.size_t) {
	return (*C.char)(unsafe.Pointer(unsafe.StringData(text))), C.size_t(len(text))
}

// enter begins a time in which code runs, until ctx ends.
func (i *isolate) enter(ctx context.Context) {
	i.busy = true
	i.mu.Lock()
	i.ctx = ctx
	i.mu.Unlock()
	i.engine.watchdog.wake()
}

// leave ends the time that enter began, and says how the code ended. It panics
// when print did.
func (i *isolate) leave(r C.nex_result) error {
	i.mu.Lock()
	i.ctx = nil
	stopped := i.stopped
	i.mu.Unlock()
	if i.panicked != nil {
		panic(i.panicked)
	}
	i.busy = false
	if stopped && r.status != C.nex_memory {
		r.status = C.nex_stopped
	}
	switch r.status {
	case C.nex_ok, C.nex_wait:
		return nil
	case C.nex_stopped:
		i.worn = true
		return js.ErrStopped
	case C.nex_memory:
		i.worn = true
		return js.ErrMemory
	case C.nex_never:
		return js.ErrNeverSettles
	}
	text := C.GoStringN(r.value.data, C.int(r.value.size))
	switch r.status {
	case C.nex_thrown:
		message, rest, _ := strings.Cut(text, "\x00")
		where, stack, _ := strings.Cut(rest, "\x00")
		return &js.Thrown{Message: message, Where: where, Stack: stack}
	case C.nex_bad_reply:
		return &js.ReplyError{Why: text}
	}
	return fmt.Errorf("V8 ended a call with the unknown status %d", r.status)
}

// check stops the code that runs when its context has ended, and reports
// whether code runs.
func (i *isolate) check() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.ctx == nil {
		return false
	}
	if i.ctx.Err() != nil {
		i.stopped = true
		C.nex_stop(i.native) // every time, as the code may not have begun yet
	}
	return true
}

// nexAsk answers what a script asks for, in memory that C++ frees, or with NULL.
// A panic is dealt with as in nexPrint.
//
//export nexAsk
func nexAsk(handle C.uintptr_t, what *C.char, whatSize C.size_t, input *C.char, size C.size_t, answerSize *C.size_t) *C.char {
	i := cgo.Handle(handle).Value().(*isolate)
	defer i.keepPanic()
	i.mu.Lock()
	ctx := i.ctx
	i.mu.Unlock()
	answer := i.helper.Ask(ctx, C.GoStringN(what, C.int(whatSize)), unsafe.Slice((*byte)(unsafe.Pointer(input)), int(size)))
	if answer == nil {
		return nil
	}
	*answerSize = C.size_t(len(answer))
	return (*C.char)(C.CBytes(answer))
}

// keepPanic ends a panic, to go on when the code is back.
func (i *isolate) keepPanic() {
	if v := recover(); v != nil {
		i.panicked = v
		C.nex_stop(i.native)
	}
}

// nexPrint takes what a script prints. A panic must not pass through C++: the
// code is stopped, and the panic goes on when it is back.
//
//export nexPrint
func nexPrint(handle C.uintptr_t, level C.int32_t, text *C.char, size C.size_t) {
	i := cgo.Handle(handle).Value().(*isolate)
	defer i.keepPanic()
	i.print(int(level), C.GoStringN(text, C.int(size)))
}
