package quickjs

import (
	"sync/atomic"
	"time"

	"modernc.org/libc"
	lib "modernc.org/libquickjs"
)

// How a call whose context ended is hurried: how often the engine is asked to
// stop, and when its heap is abandoned.
const (
	hurryEvery   = time.Millisecond
	abandonAfter = 50
)

// interrupt runs when the context of a call ended, until the call came back.
//
// The engine counts calls and jumps back in its code, and asks its interrupt
// handler when the counter comes to zero, which takes seconds where each call
// does much work. So interrupt sets the counter to zero. It does so over and
// over because the engine, which knows nothing of this goroutine, may be
// about to write the value it decremented.
//
// A native function that works for long, as JSON.parse does on a long text,
// counts nothing. Most of them allocate, so what does not come back in time
// finds its heap abandoned.
func (i *isolate) interrupt() {
	i.stop.Store(true)
	counter := &(*lib.TJSContext)(pointer(i.ctx)).Finterrupt_counter
	tick := time.NewTicker(hurryEvery)
	defer tick.Stop()
	for n := 0; ; n++ {
		atomic.StoreInt32(counter, 0)
		if n == abandonAfter {
			i.heap.abandoned.Store(true)
		}
		select {
		case <-tick.C:
		case <-i.ended:
			return
		}
	}
}

// onInterrupt is the engine's interrupt handler. Its 1 makes the engine throw
// an exception that no catch and no finally in user code gets. Where a native
// function swallows that exception all the same, the counter that is left at
// zero has the next call or jump ask again.
func (i *isolate) onInterrupt(_ *libc.TLS, _, _ uintptr) int32 {
	if !i.stop.Load() {
		return 0
	}
	i.interrupted = true
	(*lib.TJSContext)(pointer(i.ctx)).Finterrupt_counter = 0
	return 1
}
