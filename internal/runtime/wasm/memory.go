package wasm

import (
	"bytes"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

const (
	pageSize  = 64 << 10 // bytes of a page of linear memory
	chunkSize = 4 << 10  // bytes that a reset compares and copies at a time

	// maxKept is how much memory an instance may have grown by and still be
	// used again.
	maxKept = 16 << 20
)

// memory is the linear memory of one instance. The engine has a page limit of
// its own, but does not tell when it refuses to grow; here that is known, and
// a call that fails afterwards is known to have run out of memory.
type memory struct {
	limit   uint64 // bytes
	refused bool   // a request to grow beyond limit was turned down
	buf     []byte // in its present size

	region  []byte       // the system's memory that buf is in, or nil
	shared  *sharedImage // mapped at its beginning, or nil
	entries []byte       // room for what the kernel says of its pages

	shrink bool   // the next request is for the initial size
	first  uint64 // that size
}

// Allocate implements [experimental.MemoryAllocator]; an instance has one
// memory. Load has checked that it starts within the limit.
func (m *memory) Allocate(_, _ uint64) experimental.LinearMemory { return m }

// Reallocate returns the memory in its new size, or nil beyond the limit.
func (m *memory) Reallocate(size uint64) []byte {
	if m.shrink {
		m.buf = m.buf[:m.first]
		return m.buf
	}
	if size > m.limit {
		m.refused = true
		return nil
	}
	have := uint64(len(m.buf))
	if m.buf == nil {
		m.region = m.reserve(min(size+maxKept, m.limit))
		m.buf = m.region[:0]
	}
	if size <= uint64(len(m.region)) { // what is beyond buf was never used, or dropped
		m.buf = m.region[:size]
		return m.buf
	}
	m.region, m.shared = nil, nil
	if size <= uint64(cap(m.buf)) {
		m.buf = m.buf[:size]
		clear(m.buf[min(have, size):])
	} else {
		m.buf = append(m.buf, make([]byte, size-have)...)
	}
	return m.buf
}

// Free implements [experimental.LinearMemory]. The garbage collector does the
// rest: the instance may still be on its way out when this is called.
func (m *memory) Free() { drop(m.region) }

// window returns the bytes from an address on, false if they are not all in
// memory.
func (m *memory) window(at, size uint32) ([]byte, bool) {
	end := uint64(at) + uint64(size)
	if end > uint64(len(m.buf)) {
		return nil, false
	}
	return m.buf[at:end:end], true
}

// reset gives the memory its initial size and content, and reports whether it
// could. The engine knows no way to shrink a memory, but takes whatever slice it
// is given when it asks for a bigger one.
func (m *memory) reset(engine api.Memory, img image) bool {
	m.refused = false
	if uint64(len(m.buf)) > m.first+maxKept {
		return false
	}
	grown := uint64(len(m.buf)) != m.first
	if m.shared != nil && m.restoreWritten(img) != nil {
		return false
	}
	if grown {
		m.shrink = true
		_, ok := engine.Grow(1)
		m.shrink = false
		if !ok || uint64(engine.Size()) != m.first {
			return false
		}
	}
	if m.shared == nil {
		drop(m.region[min(m.first, uint64(len(m.region))):])
		img.restore(m.buf)
	}
	return true
}

// image is the initial content of a memory, in chunks. Those that are all
// zeros are nil.
type image [][]byte

var zeros [chunkSize]byte

// newImage copies a memory. touched tells which chunks may hold something else
// than zeros, or is nil: to read what was never written to is slow.
func newImage(buf []byte, touched []bool) image {
	img := make(image, 0, (len(buf)+chunkSize-1)/chunkSize)
	for len(buf) > 0 {
		n := min(chunkSize, len(buf))
		var chunk []byte
		if (touched == nil || touched[len(img)]) && !bytes.Equal(buf[:n], zeros[:n]) {
			chunk = bytes.Clone(buf[:n])
		}
		img = append(img, chunk)
		buf = buf[n:]
	}
	return img
}

// restore makes buf what the image was made from. It writes only what
// differs: most of a memory is not touched by a call.
func (img image) restore(buf []byte) {
	for _, chunk := range img {
		n := min(chunkSize, len(buf))
		want := chunk
		if want == nil {
			want = zeros[:n]
		}
		if !bytes.Equal(buf[:n], want) {
			copy(buf, want)
		}
		buf = buf[n:]
	}
}
