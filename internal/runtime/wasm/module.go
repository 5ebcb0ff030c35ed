package wasm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	pageSize   = 64 << 10 // bytes of a page of linear memory
	maxEntries = 1 << 20  // entries of all tables of an instance together, 8 bytes each
)

// Section numbers of the binary format.
const (
	tableSection  = 4
	memorySection = 5
)

var (
	moduleHeader    = []byte("\x00asm\x01\x00\x00\x00")
	componentHeader = []byte("\x00asm\x0d\x00\x01\x00")
)

// confine checks the outer form of a module and what it demands at its start:
// at most limit bytes of memory. It returns the module with its tables
// bounded, since the engine has no limit for them. Error texts continue a
// sentence that begins with the module's name.
func confine(code []byte, limit uint64) ([]byte, error) {
	if err := checkHeader(code); err != nil {
		return nil, err
	}
	out := bytes.Clone(code[:len(moduleHeader)])
	for rest := code[len(moduleHeader):]; len(rest) > 0; {
		id := rest[0]
		size, n := binary.Uvarint(rest[1:])
		if n <= 0 || size > uint64(len(rest)-1-n) {
			return nil, fmt.Errorf("is cut off: section %d goes beyond the end of the file", id)
		}
		end := 1 + n + int(size)
		body := rest[1+n : end]
		switch id {
		case memorySection:
			if err := checkMemory(body, limit); err != nil {
				return nil, err
			}
			out = append(out, rest[:end]...)
		case tableSection:
			bounded, err := boundTables(body)
			if err != nil {
				return nil, err
			}
			out = append(out, tableSection)
			out = binary.AppendUvarint(out, uint64(len(bounded)))
			out = append(out, bounded...)
		default:
			out = append(out, rest[:end]...)
		}
		rest = rest[end:]
	}
	return out, nil
}

// checkHeader tells apart what people deploy by mistake.
func checkHeader(code []byte) error {
	switch {
	case len(code) == 0:
		return errors.New("is empty")
	case bytes.HasPrefix(code, componentHeader):
		return errors.New("is a WebAssembly component; Nex runs WASI preview 1 modules: build for wasm32-wasip1")
	case bytes.HasPrefix(code, moduleHeader):
		return nil
	case bytes.HasPrefix(moduleHeader, code):
		return fmt.Errorf("is cut off after %d bytes", len(code))
	case bytes.HasPrefix(code, moduleHeader[:4]):
		return fmt.Errorf("has an unknown WebAssembly version (% x); Nex runs WASI preview 1 modules", code[4:min(len(code), 8)])
	}
	return errors.New("is not a WebAssembly module: it does not begin with \\0asm")
}

// checkMemory refuses a memory section that starts beyond limit bytes.
func checkMemory(body []byte, limit uint64) error {
	r := reader{rest: body}
	for range r.uint() {
		l := r.limits()
		if r.bad {
			return errors.New("has a damaged memory section")
		}
		if l.min > limit/pageSize {
			return fmt.Errorf("needs %s of memory to start, its limit is %s",
				mebibytes(l.min*pageSize), mebibytes(limit))
		}
	}
	return nil
}

// boundTables returns the table section with a maximum on every table.
func boundTables(body []byte) ([]byte, error) {
	r := reader{rest: body}
	count := r.uint()
	if r.bad || count > maxEntries {
		return nil, errors.New("has a damaged table section")
	}
	out := binary.AppendUvarint(nil, count)
	for range count {
		kind := r.byte()
		l := r.limits()
		if r.bad {
			return nil, errors.New("has a damaged table section")
		}
		bound := maxEntries / count
		if l.min > bound {
			return nil, fmt.Errorf("has a table of %d entries; %d are allowed", l.min, bound)
		}
		if l.hasMax {
			bound = min(bound, l.max)
		}
		out = append(out, kind, 1)
		out = binary.AppendUvarint(out, l.min)
		out = binary.AppendUvarint(out, bound)
	}
	if len(r.rest) > 0 {
		return nil, errors.New("has a damaged table section")
	}
	return out, nil
}

// reader takes a section apart. After the first mistake bad is set, and it
// returns zeros.
type reader struct {
	rest []byte
	bad  bool
}

// limits are the bounds of a memory, in pages, or a table, in entries.
type limits struct {
	min, max uint64
	hasMax   bool
}

func (r *reader) limits() limits {
	switch r.byte() {
	case 0:
		return limits{min: r.uint()}
	case 1:
		return limits{min: r.uint(), max: r.uint(), hasMax: true}
	}
	r.bad = true // shared or 64-bit memory
	return limits{}
}

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.bad = true
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func mebibytes(n uint64) string {
	return fmt.Sprintf("%.4g MiB", float64(n)/(1<<20))
}
