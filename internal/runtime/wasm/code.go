package wasm

// Instructions that matter here, by opcode. Those behind a prefix byte are
// numbered prefix<<16 | number.
const (
	opLoop       = 0x03
	opEnd        = 0x0b
	opTableSet   = 0x26
	opMisc       = 0xfc // prefix
	opVector     = 0xfd // prefix
	opMemoryInit = opMisc<<16 | 8
	opDataDrop   = opMisc<<16 | 9
	opMemoryCopy = opMisc<<16 | 10
	opMemoryFill = opMisc<<16 | 11
	opTableInit  = opMisc<<16 | 12
	opElemDrop   = opMisc<<16 | 13
	opTableCopy  = opMisc<<16 | 14
	opTableGrow  = opMisc<<16 | 15
	opTableFill  = opMisc<<16 | 17
)

// keepsState reports whether an instruction changes what a snapshot of memory
// and globals does not hold: tables, and segments that were dropped.
func keepsState(op uint64) bool {
	switch op {
	case opTableSet, opTableInit, opTableCopy, opTableGrow, opTableFill, opElemDrop, opDataDrop:
		return true
	}
	return false
}

// isBulk reports whether an instruction takes time in proportion to a size: it
// initializes, copies or fills a range.
func isBulk(op uint64) bool {
	switch op {
	case opMemoryInit, opMemoryCopy, opMemoryFill, opTableInit, opTableCopy, opTableGrow, opTableFill:
		return true
	}
	return false
}

// instruction reads one instruction of WebAssembly 2.0 and returns its opcode.
func (r *reader) instruction() uint64 {
	op := uint64(r.byte())
	switch {
	case op == opMisc:
		return opMisc<<16 | r.misc()
	case op == opVector:
		return opVector<<16 | r.vector()
	case op >= 0x45 && op <= 0xc4: // numbers without operands
	case op >= 0x28 && op <= 0x3e:
		r.place()
	case op >= 0x20 && op <= 0x26: // locals, globals, tables
		r.uint()
	default:
		r.control(op)
	}
	return op
}

// control reads what follows an opcode that the ranges leave over.
func (r *reader) control(op uint64) {
	switch op {
	case 0x00, 0x01, 0x05, opEnd, 0x0f, 0x1a, 0x1b, 0xd1: // unreachable, nop, else, end, return, drop, select, ref.is_null
	case 0x02, opLoop, 0x04: // block, loop, if: what type they have
		r.signed()
	case 0x0c, 0x0d, 0x10, 0xd2: // br, br_if, call, ref.func
		r.uint()
	case 0x0e: // br_table
		r.each(func() { r.uint() })
		r.uint()
	case 0x11: // call_indirect
		r.uint()
		r.uint()
	case 0x1c: // select with types
		r.each(r.valueType)
	case 0x3f, 0x40, 0xd0: // memory.size, memory.grow, ref.null
		r.byte()
	case 0x41, 0x42: // i32.const, i64.const
		r.signed()
	case 0x43:
		r.bytes(4)
	case 0x44:
		r.bytes(8)
	default:
		r.check(false)
	}
}

// place reads where an instruction finds its memory: an alignment and an
// offset.
func (r *reader) place() {
	r.uint()
	r.uint()
}

// misc reads what follows the prefix for saturating conversions and bulk
// operations.
func (r *reader) misc() uint64 {
	op := r.uint()
	switch {
	case op <= 7: // conversions
	case op == 8: // memory.init
		r.uint()
		r.byte()
	case op == 10: // memory.copy
		r.bytes(2)
	case op == 11: // memory.fill
		r.byte()
	case op == 9, op == 13, op >= 15 && op <= 17: // one segment or table
		r.uint()
	case op == 12, op == 14: // two of them
		r.uint()
		r.uint()
	default:
		r.check(false)
	}
	return op
}

// vector reads what follows the prefix for vectors.
func (r *reader) vector() uint64 {
	op := r.uint()
	switch {
	case op <= 11, op == 92, op == 93: // loads and stores
		r.place()
	case op == 12, op == 13: // a constant, a shuffle
		r.bytes(16)
	case op >= 21 && op <= 34: // one lane
		r.byte()
	case op >= 84 && op <= 91: // loads and stores of one lane
		r.place()
		r.byte()
	case op > 255:
		r.check(false)
	}
	return op
}
