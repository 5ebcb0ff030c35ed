package quickjs

import (
	"context"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/libquickjs"

	"nex/internal/runtime"
	"nex/internal/runtime/js"
)

// events is how many timers and answers of host services a turn is for, so that
// others have theirs.
const events = 16

// maxArgs is the most arguments that a call from Go has.
const maxArgs = 6

// isolate implements [js.Isolate]. All of it but stop, ended and the heap's
// abandoned belongs to the goroutine of the call that has the turn.
type isolate struct {
	tls   *libc.TLS
	heap  *heap
	rt    uintptr // lib.TJSRuntime
	ctx   uintptr // lib.TJSContext
	hooks []any   // the Go functions that the engine knows by address
	print func(level int, text string)

	helper *js.Helper

	argv         uintptr // maxArgs values, for the arguments of calls
	out          uintptr // four words, for results by reference
	room         uintptr // where text passes through, roomSize bytes
	roomSize     int
	freeBuffer   uintptr // the C function freeBuffer
	importFormat uintptr // the C string of refuseImport

	global  value
	fn      value // the user's function
	prelude struct{ entry, context, settle, encode, tick, next, explain value }
	library map[string][]byte // the engine's
	born    time.Time

	header      string          // of this call's reply, as JSON, or ""
	until       context.Context // the code may run until it ends
	held        []value         // released when the call has ended
	busy        bool            // code runs, or panicked
	interrupted bool            // the engine stopped the code of this turn
	worn        bool            // code was stopped or met the memory limit
	turn        js.Turn
	waiting     [js.MaxCalls]waiting

	stop  atomic.Bool   // the context of this turn ended
	hurry func()        // interrupt, as a value
	ended chan struct{} // tells interrupt that the code came back
}

// newIsolate makes an isolate with nothing in it but the language.
func newIsolate(s js.Source) (i *isolate, err error) {
	i = &isolate{tls: libc.NewTLS(), heap: newHeap(s.Memory), print: s.Print, helper: js.NewHelper(s), born: time.Now(), ended: make(chan struct{})}
	i.hurry = i.interrupt
	defer func() {
		if err != nil {
			i.Close()
		}
	}()

	functions := i.heap.get(int(unsafe.Sizeof(lib.TJSMallocFunctions{})))
	i.argv = i.heap.get(maxArgs * int(valueSize))
	i.out = i.heap.get(4 * int(valueSize))
	i.roomSize = 1 << 10 // so that short texts always find room
	i.room = i.heap.get(i.roomSize)
	i.importFormat = i.keep("cannot import '%s': a function is one file, bundle what it needs into it")
	if i.heap.exhausted {
		return nil, js.ErrMemory
	}
	*(*lib.TJSMallocFunctions)(pointer(functions)) = lib.TJSMallocFunctions{
		Fjs_malloc:             hook(i, i.heap.cMalloc),
		Fjs_free:               hook(i, i.heap.cFree),
		Fjs_realloc:            hook(i, i.heap.cRealloc),
		Fjs_malloc_usable_size: hook(i, i.heap.cUsableSize),
	}
	if i.rt = lib.XJS_NewRuntime2(i.tls, functions, 0); i.rt == 0 {
		return nil, js.ErrMemory
	}
	if i.ctx = lib.XJS_NewContext(i.tls, i.rt); i.ctx == 0 {
		return nil, js.ErrMemory
	}
	lib.XJS_SetCanBlock(i.tls, i.rt, 0)
	lib.XJS_SetInterruptHandler(i.tls, i.rt, hook(i, i.onInterrupt), 0)
	lib.XJS_SetModuleLoaderFunc(i.tls, i.rt, 0, hook(i, i.refuseImport), 0)
	i.freeBuffer = hook(i, freeBuffer)
	i.prelude.explain = undefined // until there is a prelude
	i.global = lib.XJS_GetGlobalObject(i.tls, i.ctx)
	return i, nil
}

// keep copies text to C memory for as long as the isolate lives.
func (i *isolate) keep(text string) uintptr {
	p := i.heap.get(len(text) + 1)
	if p != 0 {
		b := bytesAt(p, len(text)+1)
		copy(b, text)
		b[len(text)] = 0
	}
	return p
}

// Usable implements [js.Isolate].
func (i *isolate) Usable() bool { return !i.busy && !i.worn }

// Close implements [js.Isolate]. It takes the memory away at once instead of
// letting the engine free one object after the other, which it could not do
// after a panic.
func (i *isolate) Close() {
	i.helper.Close()
	i.tls.Close()
	i.heap.free()
}

// enter begins a turn, in which code may run until ctx ends. What it returns
// must be deferred; it turns the panic of an abandoned heap into an error.
func (i *isolate) enter(ctx context.Context) (leave func(*error)) {
	i.busy, i.until = true, ctx
	i.interrupted, i.heap.exhausted = false, false
	i.stop.Store(false)
	unwatch := context.AfterFunc(ctx, i.hurry)
	faults := debug.SetPanicOnFault(true)
	return func(err *error) {
		v := recover()
		debug.SetPanicOnFault(faults)
		if !unwatch() {
			i.ended <- struct{}{}
		}
		i.worn = i.worn || i.interrupted || i.heap.exhausted || i.heap.abandoned.Load()
		switch {
		case v == nil:
		case v == errAbandoned:
			*err = js.ErrStopped
		case i.heap.exhausted:
			*err = js.ErrMemory // the engine did not expect the refusal
		default:
			panic(v)
		}
	}
}

// done ends a turn that returned. Nothing may run in the engine after a call
// that panicked: so values are released here, and never by defer.
func (i *isolate) done() {
	for _, v := range i.held {
		i.release(v)
	}
	clear(i.held)
	i.held = i.held[:0]
	i.busy = false
}

// hold takes v over until the call is done, and returns it.
func (i *isolate) hold(v value) value {
	i.held = append(i.held, v)
	return v
}

func (i *isolate) run(v value) (runtime.Reply, error) {
	result, err := i.finish(v)
	if err != nil {
		return runtime.Reply{}, err
	}
	payload, err := i.reply(result)
	if err != nil {
		return runtime.Reply{}, err
	}
	reply := runtime.Reply{Payload: payload}
	if i.header != "" {
		if reply.Header, err = js.Header(i.header); err != nil {
			return runtime.Reply{}, err
		}
	}
	return reply, i.drain()
}

// invoke calls the user's function, and returns what it returned.
func (i *isolate) invoke(c js.Call) value {
	subject := i.hold(i.newString(c.Subject))
	payload := i.hold(i.newBytes(c.Payload))
	reply := i.hold(i.newString(c.Reply))
	header := undefined
	if c.Header != "" {
		header = i.hold(i.newString(c.Header))
	}
	if i.heap.exhausted {
		return lib.XJS_ThrowOutOfMemory(i.tls, i.ctx)
	}
	place := newFloat(float64(c.Slot))
	if c.Others == 0 {
		place = newFloat(-1)
	}
	info := i.hold(i.construct(i.prelude.context, subject, payload, reply, newFloat(c.Deadline), place, header))
	if isException(info) {
		return exception
	}
	return i.hold(i.call(i.fn, i.global, subject, payload, info))
}

// reply returns what v is as a reply.
func (i *isolate) reply(v value) ([]byte, error) {
	if tag(v) == lib.EJS_TAG_UNDEFINED || tag(v) == lib.EJS_TAG_NULL {
		return nil, nil
	}
	if isString(v) {
		text, ok := i.text(v)
		if !ok {
			return nil, i.thrown()
		}
		return []byte(text), nil
	}
	if i.isBytes(v) {
		b, err := i.view(v)
		if err != nil {
			return nil, &js.ReplyError{Why: err.Error()}
		}
		return slices.Clone(b), nil
	}
	encoded := i.hold(i.call(i.prelude.encode, undefined, v))
	if isException(encoded) {
		return nil, unsayable(i.thrown())
	}
	return i.reply(encoded) // a string or a typed array: no deeper
}

// unsayable turns what encoding a reply threw into a reply error.
func unsayable(err error) error {
	if t, ok := err.(*js.Thrown); ok {
		return &js.ReplyError{Why: t.Message}
	}
	return err
}

// finish runs code until v is settled when it is a promise, or like one, and
// returns the final value. It is errWaits where code has to wait.
func (i *isolate) finish(v value) (value, error) {
	for {
		if isException(v) {
			return undefined, i.thrown()
		}
		if !isObject(v) || i.isBytes(v) {
			return v, nil
		}
		state := lib.XJS_PromiseState(i.tls, i.ctx, v)
		if state < 0 {
			next := i.hold(i.call(i.prelude.settle, undefined, v))
			if isObject(next) && word(next) == word(v) {
				return v, nil
			}
			v = next
			continue
		}
		when := did
		for n := 0; state == lib.EJS_PROMISE_PENDING && when == did; {
			if !i.work() {
				if !i.interrupted && (n == events || i.ready() != 0) {
					return undefined, errWaits{v, i.turn.Slot} // others first
				}
				when = i.tick()
				n++
			}
			state = lib.XJS_PromiseState(i.tls, i.ctx, v)
		}
		result := i.hold(lib.XJS_PromiseResult(i.tls, i.ctx, v))
		switch {
		case i.interrupted:
			return undefined, js.ErrStopped
		case state == lib.EJS_PROMISE_PENDING && when >= 0:
			return undefined, errWaits{v, when}
		case state == lib.EJS_PROMISE_PENDING && i.heap.exhausted:
			return undefined, js.ErrMemory
		case state == lib.EJS_PROMISE_PENDING:
			return undefined, js.ErrNeverSettles
		case state == lib.EJS_PROMISE_REJECTED:
			v = lib.XJS_Throw(i.tls, i.ctx, lib.XDupValue(i.tls, i.ctx, result))
		default:
			v = result
		}
	}
}

// drain runs the promise jobs that are left.
func (i *isolate) drain() error {
	for i.work() {
	}
	if i.interrupted {
		return js.ErrStopped
	}
	return nil
}

// did is what tick returns when it did something.
const did = -2

// tick is that of the prelude. It is also -1 where the code must stop.
func (i *isolate) tick() int {
	if i.interrupted {
		return -1
	}
	any := newFloat(0)
	if i.turn.Any || i.turn.Others == 0 {
		any = newFloat(1)
	}
	met := i.heap.exhausted
	i.heap.exhausted = false
	v := i.call(i.prelude.tick, undefined, newFloat(float64(i.turn.Slot)), any)
	now := i.heap.exhausted
	i.heap.exhausted = met || now
	switch {
	case isException(v):
		i.dropException()
		return -1
	case now: // what the timer threw then is no error to go on after
		return -1
	}
	return int(integer(v))
}

// work runs one promise job. It returns false when none is left or the code
// must stop.
func (i *isolate) work() bool {
	if i.stop.Load() && lib.XJS_IsJobPending(i.tls, i.rt) != 0 {
		i.interrupted = true
	}
	if i.interrupted {
		return false
	}
	n := lib.XJS_ExecutePendingJob(i.tls, i.rt, 0)
	if n < 0 {
		// A promise takes what its job throws; what comes here was stopped,
		// met the memory limit, or concerns nobody.
		i.dropException()
	}
	return n != 0 && !i.interrupted
}
