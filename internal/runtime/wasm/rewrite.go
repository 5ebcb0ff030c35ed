package wasm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// ownPrefix begins the names of the exports that [rewrite] adds.
const (
	ownPrefix   = "nex:"
	stopExport  = ownPrefix + "stop"
	startExport = ownPrefix + "start"
)

// globalExport is the name under which a module exports its global i.
func globalExport(i uint64) string { return fmt.Sprintf("%sglobal.%d", ownPrefix, i) }

var errReserved = errors.New(`exports a name that begins with "` + ownPrefix + `": these are reserved`)

// prepared is a module that was rewritten so that its instances can be stopped
// and, if resets is true, be set back to their initial state.
type prepared struct {
	code    []byte
	globals []string // exports of the globals that change
	starts  bool     // the start section has become an export, for the host to call
	resets  bool     // memory and globals are all the state an instance has
}

// fuel is how many turns of loops and calls code runs between two ticks. The
// engine's machine code cannot be interrupted: while it runs, the Go scheduler
// and the garbage collector wait for it.
const fuel = 4096

// bulk is how many turns an operation on a range of memory or of a table
// counts: one byte's worth of a constant.
const bulk = 63

// rewriter collects what a pass over the sections finds.
type rewriter struct {
	prepared
	importedGlobals uint64
	definedGlobals  uint64
	mutable         []uint64 // numbers of the globals that change
	functions       uint64   // imported and defined
	types           uint64
	memories        uint64
	start           uint64 // number of the start function
	last            byte   // the section that went out last
}

// rewrite takes a module that [confine] let through and returns it with
//
//   - two globals more, fuel and stop, and a function, tick. Every function when
//     it begins and every loop each time round burns fuel, and calls tick when
//     there is none left. That returns to the engine for a moment, fills up,
//     and traps when stop, which is exported, is not 0;
//   - every global that changes exported;
//   - the start function exported instead of run by the engine, where nothing
//     could stop it;
//   - no custom sections but the one with the names.
//
// What the module computes stays the same.
func rewrite(code []byte) (*prepared, error) {
	w := &rewriter{prepared: prepared{resets: true}}
	var parts []part
	for r := (reader{rest: code[len(moduleHeader):]}); len(r.rest) > 0; {
		s := part{id: r.byte()}
		s.body = r.bytes(r.uint())
		if r.bad {
			return nil, errors.New("is cut off")
		}
		if err := w.survey(s); err != nil {
			return nil, err
		}
		parts = append(parts, s)
	}
	w.code = bytes.Clone(moduleHeader)
	for _, s := range parts {
		if err := w.section(s); err != nil {
			return nil, err
		}
	}
	return &w.prepared, nil
}

type part struct {
	id   byte
	body []byte
}

// survey counts what later sections refer to.
func (w *rewriter) survey(s part) error {
	r := reader{rest: s.body}
	switch s.id {
	case typeSection:
		w.types = r.uint()
	case importSection:
		r.each(w.imported(&r))
	case functionSection:
		w.functions += r.uint()
	case memorySection:
		w.memories += r.uint()
	case globalSection:
		r.each(w.global(&r))
	case startSection:
		w.starts, w.start = true, r.uint()
	case exportSection:
		reserved := false
		r.each(func() {
			reserved = reserved || strings.HasPrefix(string(r.text()), ownPrefix)
			r.byte()
			r.uint()
		})
		if reserved {
			return errReserved
		}
	}
	return nil
}

func (w *rewriter) imported(r *reader) func() {
	return func() {
		switch r.imported() {
		case 0:
			w.functions++
		case 2:
			w.memories++
		case 3:
			w.importedGlobals++
			w.resets = false
		}
	}
}

func (w *rewriter) global(r *reader) func() {
	return func() {
		kind := r.byte()
		if r.byte() == 1 {
			if kind < 0x7c || kind > 0x7f { // a vector or a reference: the host cannot set it
				w.resets = false
			} else {
				n := w.importedGlobals + w.definedGlobals
				w.mutable = append(w.mutable, n)
				w.globals = append(w.globals, globalExport(n))
			}
		}
		r.expression()
		w.definedGlobals++
	}
}

// The numbers of what is added.
func (w *rewriter) fuel() uint64 { return w.importedGlobals + w.definedGlobals }
func (w *rewriter) stop() uint64 { return w.fuel() + 1 }
func (w *rewriter) tick() uint64 { return w.functions }

// section writes a section as it shall be.
func (w *rewriter) section(s part) error {
	if s.id == customSection {
		if r := (reader{rest: s.body}); string(r.text()) == "name" {
			w.code = appendSection(w.code, s)
		}
		return nil
	}
	w.fill(s.id)
	w.last = s.id
	switch s.id {
	case typeSection:
		s.body = extend(s.body, 1, 0x60, 0, 0)
	case functionSection:
		s.body = extend(s.body, 1, binary.AppendUvarint(nil, w.types)...)
	case globalSection:
		s.body = w.variables(s.body)
	case exportSection:
		s.body = w.exports(s.body)
	case startSection:
		return nil
	case codeSection:
		var err error
		if s.body, err = w.functionBodies(s.body); err != nil {
			return err
		}
	}
	w.code = appendSection(w.code, s)
	return nil
}

// fill writes the memory and the globals before the section that is next, if
// the module has none.
func (w *rewriter) fill(next byte) {
	if w.memories == 0 && w.last < memorySection && next > memorySection {
		w.code = appendSection(w.code, part{memorySection, []byte{1, 1, 0, 0}}) // no page, ever
	}
	if w.definedGlobals == 0 && w.last < globalSection && next > globalSection {
		w.code = appendSection(w.code, part{globalSection, w.variables([]byte{0})})
	}
}

// variables appends two of type i32 and value 0 to a global section.
func (w *rewriter) variables(body []byte) []byte {
	zero := []byte{0x7f, 1, 0x41, 0, opEnd}
	return extend(body, 2, append(zero, zero...)...)
}

// extend appends n items to a list.
func extend(list []byte, n uint64, items ...byte) []byte {
	r := reader{rest: list}
	out := binary.AppendUvarint(nil, r.uint()+n)
	return append(append(out, r.rest...), items...)
}

func (w *rewriter) exports(body []byte) []byte {
	n := uint64(len(w.mutable)) + 1
	var added []byte
	for i, number := range w.mutable {
		added = appendExport(added, w.globals[i], 3, number)
	}
	added = appendExport(added, stopExport, 3, w.stop())
	if w.starts {
		n++
		added = appendExport(added, startExport, 0, w.start)
	}
	return extend(body, n, added...)
}

// burn is code that burns n units of fuel.
func (w *rewriter) burn(n byte) []byte {
	code := binary.AppendUvarint([]byte{0x23}, w.fuel())       // global.get fuel
	code = append(code, 0x41, n, 0x6b, 0x24)                   // i32.const n, i32.sub, global.set …
	code = binary.AppendUvarint(code, w.fuel())                // … fuel
	code = binary.AppendUvarint(append(code, 0x23), w.fuel())  // global.get fuel
	code = append(code, 0x41, 0, 0x48, 0x04, 0x40, 0x10)       // i32.const 0, i32.lt_s, if, call …
	return append(binary.AppendUvarint(code, w.tick()), opEnd) // … tick, end
}

// tickBody is the function tick. Growing the memory by nothing is how code
// returns to the engine without a function of the host.
func (w *rewriter) tickBody() []byte {
	code := binary.AppendUvarint([]byte{0, 0x41}, fuel) // no locals, i32.const fuel: as a signed number it reads the same
	code = append(code, 0x24)                           // global.set …
	code = binary.AppendUvarint(code, w.fuel())         // … fuel
	code = append(code, 0x41, 0, 0x40, 0, 0x1a, 0x23)   // i32.const 0, memory.grow, drop, global.get …
	code = binary.AppendUvarint(code, w.stop())         // … stop
	return append(code, 0x04, 0x40, 0x00, opEnd, opEnd) // if, unreachable, end, end
}

var errCode = errors.New("has code that is damaged or beyond what is supported")

func (w *rewriter) functionBodies(body []byte) ([]byte, error) {
	r := reader{rest: body}
	out := binary.AppendUvarint(make([]byte, 0, len(body)+len(body)/4), r.uint()+1)
	check, bulky := w.burn(1), w.burn(bulk)
	for len(r.rest) > 0 {
		f, err := w.function(r.text(), check, bulky)
		if err != nil || r.bad {
			return nil, errCode
		}
		out = binary.AppendUvarint(out, uint64(len(f)))
		out = append(out, f...)
	}
	tick := w.tickBody()
	out = binary.AppendUvarint(out, uint64(len(tick)))
	return append(out, tick...), nil
}

func (w *rewriter) function(body, check, bulky []byte) ([]byte, error) {
	r := reader{rest: body}
	r.each(func() { r.uint(); r.valueType() })
	copied := len(body) - len(r.rest)
	out := make([]byte, 0, len(body)+len(body)/4+len(check))
	out = append(append(out, body[:copied]...), check...)
	last := uint64(0)
	for len(r.rest) > 0 {
		last = r.instruction()
		w.resets = w.resets && !keepsState(last)
		added := check
		switch {
		case isBulk(last):
			added = bulky
		case last != opLoop:
			continue
		}
		here := len(body) - len(r.rest)
		out = append(append(out, body[copied:here]...), added...)
		copied = here
	}
	if r.bad || last != opEnd {
		return nil, errCode
	}
	return append(out, body[copied:]...), nil
}

func appendSection(out []byte, s part) []byte {
	out = append(out, s.id)
	out = binary.AppendUvarint(out, uint64(len(s.body)))
	return append(out, s.body...)
}

func appendExport(out []byte, name string, kind byte, number uint64) []byte {
	out = binary.AppendUvarint(out, uint64(len(name)))
	out = append(out, name...)
	out = append(out, kind)
	return binary.AppendUvarint(out, number)
}
