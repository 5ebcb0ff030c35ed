package wasm

import "github.com/tetratelabs/wazero/experimental"

// memory is the linear memory of one instance. The engine has a page limit of
// its own, but does not tell when it refuses to grow; here that is known, and
// a call that fails afterwards is known to have run out of memory.
type memory struct {
	limit   uint64 // bytes
	refused bool   // a request to grow beyond limit was turned down
	buf     []byte
}

// Allocate implements [experimental.MemoryAllocator]; an instance has one
// memory. Load has checked that it starts within the limit.
func (m *memory) Allocate(_, _ uint64) experimental.LinearMemory { return m }

// Reallocate returns the memory in its new size, or nil beyond the limit.
func (m *memory) Reallocate(size uint64) []byte {
	if size > m.limit {
		m.refused = true
		return nil
	}
	if have := uint64(len(m.buf)); size > have {
		m.buf = append(m.buf, make([]byte, size-have)...)
	}
	return m.buf
}

// Free implements [experimental.LinearMemory]. The garbage collector does the
// rest: the instance may still be on its way out when this is called.
func (m *memory) Free() {}
