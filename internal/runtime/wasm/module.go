package wasm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	maxEntries = 1 << 20 // entries of all tables of an instance together, 8 bytes each
)

var (
	moduleHeader    = []byte("\x00asm\x01\x00\x00\x00")
	componentHeader = []byte("\x00asm\x0d\x00\x01\x00")
)

// confine checks the outer form of a module and what it demands at its start:
// at most limit bytes of memory. It returns the module with its tables
// bounded, since the engine has no limit for them, and without custom sections
// that make no sense. Error texts continue a sentence that begins with the
// module's name.
func confine(code []byte, limit uint64) ([]byte, error) {
	if err := checkHeader(code); err != nil {
		return nil, err
	}
	out := bytes.Clone(moduleHeader)
	for r := (reader{rest: code[len(moduleHeader):]}); len(r.rest) > 0; {
		id := r.byte()
		body := r.bytes(r.uint())
		if r.bad {
			return nil, fmt.Errorf("is cut off: its %s section goes beyond the end of the file", sectionName(id))
		}
		switch ok := wellFormed(id, body); {
		case !ok && id == customSection:
			continue
		case !ok:
			return nil, fmt.Errorf("has a %s section that is damaged or beyond what is supported", sectionName(id))
		case id == memorySection:
			if err := checkMemory(body, limit); err != nil {
				return nil, err
			}
		case id == tableSection:
			var err error
			if body, err = boundTables(body); err != nil {
				return nil, err
			}
		}
		out = append(out, id)
		out = binary.AppendUvarint(out, uint64(len(body)))
		out = append(out, body...)
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
	return errors.New(`is not a WebAssembly module: it does not begin with \0asm (invalid magic number)`)
}

// checkMemory refuses a well-formed memory section that starts beyond limit
// bytes.
func checkMemory(body []byte, limit uint64) (err error) {
	r := reader{rest: body}
	r.each(func() {
		if l := r.limits(); l.min > limit/pageSize {
			err = fmt.Errorf("needs %s of memory to start, its limit is %s",
				mebibytes(l.min*pageSize), mebibytes(limit))
		}
	})
	return err
}

// boundTables returns a well-formed table section with a maximum on every
// table.
func boundTables(body []byte) ([]byte, error) {
	r := reader{rest: body}
	count := r.uint()
	out := binary.AppendUvarint(nil, count)
	for range count {
		kind, l, bound := r.byte(), r.limits(), maxEntries/count
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
	return out, nil
}

func mebibytes(n uint64) string {
	return fmt.Sprintf("%.4g MiB", float64(n)/(1<<20))
}
