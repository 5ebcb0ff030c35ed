//go:build v8 && linux && (amd64 || arm64)

package v8

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// tick is how often the watchdog looks, so how late code is stopped.
	tick = 5 * time.Millisecond
	// patience is how many ticks without running code it waits for more before
	// it ends.
	patience = 10
)

// watchdog stops code whose context has ended. One goroutine does that for all
// isolates of an engine, while code runs in any of them and a little longer:
// that costs a call much less than a timer, or a goroutine, of its own.
type watchdog struct {
	awake atomic.Bool

	mu  sync.Mutex
	all map[*isolate]struct{} // guarded by mu
}

func (w *watchdog) add(i *isolate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[*isolate]struct{}{}
	}
	w.all[i] = struct{}{}
}

func (w *watchdog) remove(i *isolate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, i)
}

// wake sees that the watchdog looks at code that is about to run.
func (w *watchdog) wake() {
	if !w.awake.Load() && w.awake.CompareAndSwap(false, true) {
		go w.run()
	}
}

func (w *watchdog) run() {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		for idle := 0; idle < patience; idle++ {
			<-t.C
			if w.look() {
				idle = 0
			}
		}
		// Code that began to run before this store is seen now; code that
		// begins later wakes another.
		w.awake.Store(false)
		if !w.look() || !w.awake.CompareAndSwap(false, true) {
			return
		}
	}
}

// look stops what must stop, and reports whether any code runs.
func (w *watchdog) look() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	running := false
	for i := range w.all {
		if i.check() {
			running = true
		}
	}
	return running
}
