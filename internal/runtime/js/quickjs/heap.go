package quickjs

import (
	"errors"
	"sync/atomic"

	"modernc.org/libc"
	lib "modernc.org/libquickjs"
	"modernc.org/memory"
)

// pageSize is what large blocks are counted in: what the system really gives.
const pageSize = 4096

// heap is the memory of one isolate. QuickJS calls it for blocks of more than
// 500 bytes and for the arenas of the smaller ones. All of it but abandoned is
// used by one goroutine at a time.
type heap struct {
	alloc     memory.Allocator
	limit     uint64          // bytes
	used      uint64          // bytes
	large     map[uintptr]int // bytes counted for each block above largeBlock
	exhausted bool            // an allocation was refused since this was last cleared
	abandoned atomic.Bool     // every use panics with errAbandoned
}

// largeBlock is the size from which memory.Allocator maps whole regions for a
// block, of which only the touched pages cost anything.
const largeBlock = 16 << 10

func newHeap(limit int64) *heap {
	return &heap{limit: uint64(limit), large: map[uintptr]int{}}
}

// errAbandoned is what the heap panics with to end a call.
var errAbandoned = errors.New("the heap was abandoned")

// check ends the call when the heap was abandoned.
func (h *heap) check() {
	if h.abandoned.Load() {
		panic(errAbandoned)
	}
}

// size returns the bytes counted for the block at p.
func (h *heap) size(p uintptr) int {
	if n, ok := h.large[p]; ok {
		return n
	}
	return memory.UintptrUsableSize(p)
}

// get allocates n bytes, or returns 0 where that would pass the limit.
func (h *heap) get(n int) uintptr {
	h.check()
	if n < 0 || h.used+uint64(n) > h.limit {
		h.exhausted = true
		return 0
	}
	p, err := h.alloc.UintptrMalloc(max(n, 1))
	if err != nil {
		h.exhausted = true
		return 0
	}
	if n > largeBlock {
		h.large[p] = counted(p, n)
	}
	h.used += uint64(h.size(p))
	return p
}

// put frees the block at p.
func (h *heap) put(p uintptr) {
	h.check()
	h.used -= uint64(h.size(p))
	delete(h.large, p)
	if err := h.alloc.UintptrFree(p); err != nil {
		panic(err) // the allocator's own tables are damaged
	}
}

// resize changes the block at p to n bytes: in place where its memory is
// there, else by moving it.
func (h *heap) resize(p uintptr, n int) uintptr {
	old := h.size(p)
	if n <= old && n > old/2 {
		return p
	}
	if _, ok := h.large[p]; ok && n > old && n <= memory.UintptrUsableSize(p) {
		more := counted(p, n) - old
		if h.used+uint64(more) > h.limit {
			h.exhausted = true
			return 0
		}
		h.used += uint64(more)
		h.large[p] = old + more
		return p
	}
	q := h.get(n)
	if q == 0 {
		return 0
	}
	copy(bytesAt(q, n), bytesAt(p, min(old, n)))
	h.put(p)
	return q
}

// trim gives back to the system what the allocator keeps for blocks to come.
func (h *heap) trim() { _ = h.alloc.Trim() } // what is not given back is used again

// free gives all memory back to the system.
func (h *heap) free() { _ = h.alloc.Close() }

// counted returns what n bytes in the large block at p cost.
func counted(p uintptr, n int) int {
	return min((n+pageSize-1)&^(pageSize-1), memory.UintptrUsableSize(p))
}

// The functions QuickJS calls, in C's ways. They keep the engine's own count
// up to date, because it decides by it when to collect garbage.

func (h *heap) cMalloc(_ *libc.TLS, state uintptr, n lib.Tsize_t) uintptr {
	p := h.get(int(n))
	if p != 0 {
		h.tell(state, +1)
	}
	return p
}

func (h *heap) cFree(_ *libc.TLS, state, p uintptr) {
	if p != 0 {
		h.put(p)
		h.tell(state, -1)
	}
}

func (h *heap) cRealloc(_ *libc.TLS, state, p uintptr, n lib.Tsize_t) uintptr {
	switch {
	case p == 0 && n == 0:
		return 0
	case p == 0:
		p = h.get(int(n))
		if p != 0 {
			h.tell(state, +1)
		}
		return p
	case n == 0:
		h.put(p)
		h.tell(state, -1)
		return 0
	}
	q := h.resize(p, int(n))
	h.tell(state, 0)
	return q
}

func (h *heap) cUsableSize(_ *libc.TLS, p uintptr) lib.Tsize_t {
	if p == 0 {
		return 0
	}
	return lib.Tsize_t(h.size(p))
}

// tell writes the count of bytes and, changed by delta, of blocks to state.
func (h *heap) tell(state uintptr, delta int) {
	s := (*lib.TJSMallocState)(pointer(state))
	s.Fmalloc_size = lib.Tsize_t(h.used)
	s.Fmalloc_count += lib.Tsize_t(delta)
}
