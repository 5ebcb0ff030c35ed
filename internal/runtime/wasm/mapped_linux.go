package wasm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where the kernel offers it, instances map their initial memory from one file
// that they share, privately: the kernel copies a page when it is first written
// to. Which pages those are it tells in /proc/self/pagemap, so that a reset
// copies them back and looks at nothing else.

// Bits of an entry of /proc/self/pagemap, from the kernel's
// Documentation/admin-guide/mm/pagemap.rst.
const (
	entryPresent = 1 << 63
	entrySwapped = 1 << 62
	entryFile    = 1 << 61 // of the file, so not written to
	entrySize    = 8       // bytes
)

// maxCleared is by how many bytes a memory may have grown for its pages to be
// cleared; those of more are given back, and have to be made again.
const maxCleared = 4 << 20

// sharedImage is an image as a file that nobody can write to.
type sharedImage struct {
	file    *os.File
	pagemap *os.File
}

// share puts an image of so many bytes into a file. An error means that this
// kernel cannot, or may not.
func (img image) share(size int) (s *sharedImage, err error) {
	if os.Getpagesize() != chunkSize || size == 0 {
		return nil, errors.ErrUnsupported
	}
	fd, err := unix.MemfdCreate("nex-wasm-memory", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	s = &sharedImage{file: os.NewFile(uintptr(fd), "memory")}
	defer func() {
		if err != nil {
			s, err = nil, errors.Join(err, s.close())
		}
	}()
	if err := s.file.Truncate(int64(size)); err != nil {
		return s, err
	}
	for n, chunk := range img {
		if chunk == nil {
			continue
		}
		if _, err := s.file.WriteAt(chunk, int64(n)*chunkSize); err != nil {
			return s, err
		}
	}
	if _, err := unix.FcntlInt(s.file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return s, fmt.Errorf("seal memory file: %w", err)
	}
	s.pagemap, err = os.Open("/proc/self/pagemap")
	return s, err
}

// close ends the file for those to come; what is mapped stays.
func (s *sharedImage) close() error {
	if s.pagemap == nil {
		return s.file.Close()
	}
	return errors.Join(s.file.Close(), s.pagemap.Close())
}

// reserve returns zeroed memory of the system's that is given back when m is
// garbage, or nil if there is none.
func (m *memory) reserve(size uint64) []byte {
	region, err := unix.MmapPtr(-1, 0, nil, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil
	}
	runtime.AddCleanup(m, func(p unsafe.Pointer) { _ = unix.MunmapPtr(p, uintptr(size)) }, region) // fails on what is none
	return unsafe.Slice((*byte)(region), size)
}

// adopt maps the image into the beginning of the region.
func (m *memory) adopt(s *sharedImage) error {
	if m.region == nil || uint64(len(m.buf)) != m.first {
		return errors.ErrUnsupported
	}
	_, err := unix.MmapPtr(int(s.file.Fd()), 0, unsafe.Pointer(unsafe.SliceData(m.region)), uintptr(m.first),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_FIXED)
	if err != nil {
		return fmt.Errorf("map memory: %w", err)
	}
	m.shared = s
	return nil
}

// restoreWritten copies back the pages that were written to, and clears those
// by which the memory has grown.
func (m *memory) restoreWritten(img image) error {
	if len(m.buf) > len(img)*chunkSize+maxCleared {
		drop(m.region[len(img)*chunkSize:])
		m.buf = m.region[:len(img)*chunkSize]
	}
	if err := m.readEntries(m.shared.pagemap); err != nil {
		return err
	}
	for n := range len(m.buf) / chunkSize {
		if !m.written(n) {
			continue
		}
		page := m.region[n*chunkSize : (n+1)*chunkSize]
		if n >= len(img) || img[n] == nil {
			clear(page)
		} else {
			copy(page, img[n])
		}
	}
	return nil
}

// readEntries asks the kernel about the pages of the memory.
func (m *memory) readEntries(pagemap *os.File) error {
	size := len(m.buf) / chunkSize * entrySize
	if len(m.entries) < size {
		m.entries = make([]byte, size)
	}
	at := uintptr(unsafe.Pointer(unsafe.SliceData(m.region))) / chunkSize * entrySize
	if _, err := pagemap.ReadAt(m.entries[:size], int64(at)); err != nil {
		return fmt.Errorf("read page map: %w", err)
	}
	return nil
}

// written reports whether a page is not the file's, or none at all. Entries
// have been read.
func (m *memory) written(page int) bool {
	e := binary.NativeEndian.Uint64(m.entries[page*entrySize:])
	return e&entrySwapped != 0 || e&entryPresent != 0 && e&entryFile == 0
}

// touched tells which chunks were ever written to, or nil if the kernel does not
// say.
func (m *memory) touched() []bool {
	if m.region == nil || os.Getpagesize() != chunkSize {
		return nil
	}
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil
	}
	defer pagemap.Close()
	if m.readEntries(pagemap) != nil {
		return nil
	}
	touched := make([]bool, len(m.buf)/chunkSize)
	for n := range touched {
		touched[n] = m.written(n)
	}
	return touched
}

// drop gives the pages of a part of the region back: they are zero, or the
// image's, when they are used again.
func drop(part []byte) {
	if len(part) > 0 {
		_ = unix.Madvise(part, unix.MADV_DONTNEED) // fails on what is not mapped
	}
}
