package wasm

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Section numbers of the binary format.
const (
	customSection    = 0
	typeSection      = 1
	importSection    = 2
	functionSection  = 3
	tableSection     = 4
	memorySection    = 5
	globalSection    = 6
	exportSection    = 7
	startSection     = 8
	elementSection   = 9
	codeSection      = 10
	dataSection      = 11
	dataCountSection = 12
)

// Limits of the form of a module, as browsers have them.
const (
	maxItems  = 1 << 20 // items of one list
	maxLocals = 50_000  // locals of one function
	sumLocals = 1 << 24 // locals of all functions
)

func sectionName(id byte) string {
	names := [...]string{"custom", "type", "import", "function", "table", "memory", "global",
		"export", "start", "element", "code", "data", "data count"}
	if int(id) < len(names) {
		return names[id]
	}
	return fmt.Sprintf("number %d", id)
}

// wellFormed walks through a section to prove every count and length in it.
// The engine would believe them: a module of twenty bytes that announces four
// billion imports makes it allocate room for all of them, and the process end.
// What the code means is left to the engine.
func wellFormed(id byte, body []byte) bool {
	r := reader{rest: body}
	switch id {
	case customSection:
		r.custom()
	case typeSection:
		r.each(r.funcType)
	case importSection:
		r.each(func() { r.imported() })
	case functionSection:
		r.each(func() { r.uint() })
	case tableSection:
		r.each(r.table)
	case memorySection:
		r.each(func() { r.limits() })
	case globalSection:
		r.each(func() { r.valueType(); r.byte(); r.expression() })
	case exportSection:
		r.each(func() { r.text(); r.byte(); r.uint() })
	case startSection, dataCountSection:
		r.uint()
	case elementSection:
		r.each(r.element)
	case codeSection:
		locals := uint64(0)
		r.each(func() { locals += r.function() })
		r.check(locals <= sumLocals)
	case dataSection:
		r.each(r.data)
	default:
		r.bad = true
	}
	return !r.bad && len(r.rest) == 0
}

// reader takes a section apart. Once something is wrong, bad is set and it
// returns zeros.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) check(ok bool) {
	if !ok {
		r.bad, r.rest = true, nil
	}
}

func (r *reader) byte() byte {
	b := r.bytes(1)
	if r.bad {
		return 0
	}
	return b[0]
}

func (r *reader) bytes(n uint64) []byte {
	r.check(n <= uint64(len(r.rest)))
	if r.bad {
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// uint reads an unsigned number of 32 bits.
func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.rest)
	r.check(n > 0 && v <= math.MaxUint32)
	if r.bad {
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// signed skips a signed number.
func (r *reader) signed() {
	for r.byte() >= 0x80 {
	}
}

func (r *reader) text() []byte { return r.bytes(r.uint()) }

// each reads a list, calling item for each of its items.
func (r *reader) each(item func()) {
	n := r.uint()
	r.check(n <= maxItems)
	for range n {
		if r.bad {
			return
		}
		item()
	}
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
		l := limits{min: r.uint(), hasMax: true}
		l.max = r.uint()
		return l
	}
	r.check(false) // shared or 64-bit memory
	return limits{}
}

// valueType takes numbers, vectors and plain references.
func (r *reader) valueType() {
	b := r.byte()
	r.check(b >= 0x7b && b <= 0x7f || b == 0x6f || b == 0x70)
}

func (r *reader) funcType() {
	r.check(r.byte() == 0x60)
	r.each(r.valueType)
	r.each(r.valueType)
}

func (r *reader) table() {
	kind := r.byte()
	r.check(kind == 0x6f || kind == 0x70)
	r.limits()
}

// imported reads an import and returns its kind.
func (r *reader) imported() byte {
	r.text()
	r.text()
	kind := r.byte()
	switch kind {
	case 0:
		r.uint()
	case 1:
		r.table()
	case 2:
		r.limits()
	case 3:
		r.valueType()
		r.byte()
	default:
		r.check(false)
	}
	return kind
}

// expression reads a constant expression.
func (r *reader) expression() {
	for !r.bad {
		switch r.byte() {
		case 0x0b: // end
			return
		case 0x41, 0x42: // i32.const, i64.const
			r.signed()
		case 0x43: // f32.const
			r.bytes(4)
		case 0x44: // f64.const
			r.bytes(8)
		case 0x23, 0xd2: // global.get, ref.func
			r.uint()
		case 0xd0: // ref.null
			r.byte()
		case 0xfd: // v128.const
			r.check(r.byte() == 0x0c)
			r.bytes(16)
		default:
			r.check(false)
		}
	}
}

// element reads an element segment. The bits of its first number say what
// follows: 1 passive or declared, 2 with a table or declared, 4 expressions
// instead of function numbers.
func (r *reader) element() {
	flags := r.uint()
	r.check(flags < 8)
	if flags&1 == 0 {
		if flags&2 != 0 {
			r.uint()
		}
		r.expression()
	}
	if flags&3 != 0 {
		r.byte() // the kind of its items
	}
	if flags&4 != 0 {
		r.each(r.expression)
	} else {
		r.each(func() { r.uint() })
	}
}

// function reads a function's code and returns how many locals it has.
func (r *reader) function() (locals uint64) {
	f := reader{rest: r.text()}
	f.each(func() {
		locals += f.uint()
		f.valueType()
	})
	r.check(!f.bad && locals <= maxLocals)
	return locals
}

func (r *reader) data() {
	switch r.uint() {
	case 0:
		r.expression()
	case 1:
	case 2:
		r.uint()
		r.expression()
	default:
		r.check(false)
	}
	r.text()
}

// custom reads a custom section. Only that with the names matters.
func (r *reader) custom() {
	if string(r.text()) != "name" {
		r.rest = nil
		return
	}
	naming := func(s *reader) func() { return func() { s.uint(); s.text() } }
	for len(r.rest) > 0 {
		id := r.byte()
		s := &reader{rest: r.text()}
		switch id {
		case 0: // of the module
			s.text()
		case 1: // of functions
			s.each(naming(s))
		case 2: // of locals
			s.each(func() { s.uint(); s.each(naming(s)) })
		default:
			s.rest = nil
		}
		r.check(!s.bad && len(s.rest) == 0)
	}
}
