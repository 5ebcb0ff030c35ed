package wasm

import "encoding/binary"

// A tiny module is written by hand, section by section.

// tiny assembles a module of sections in the order given.
func tiny(sections ...[]byte) []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	for _, s := range sections {
		out = append(out, s...)
	}
	return out
}

// section gives its content the frame of section id.
func section(id byte, content ...byte) []byte {
	return append(binary.AppendUvarint([]byte{id}, uint64(len(content))), content...)
}

// command is a module with sections of its own and a _start function made of
// body.
func command(extra [][]byte, body ...byte) []byte {
	sections := [][]byte{
		section(typeSection, 1, 0x60, 0, 0), // type 0: no parameters, no results
		section(functionSection, 1, 0),      // function 0 has type 0
	}
	sections = append(sections, extra...)
	sections = append(sections,
		section(exportSection, append([]byte{1, 6}, "_start\x00\x00"...)...),
		coded(body...))
	return tiny(sections...)
}

// coded is a code section that holds one function without locals.
func coded(body ...byte) []byte {
	f := append([]byte{0}, body...)
	f = append(f, 0x0b) // end
	return section(codeSection, append(binary.AppendUvarint([]byte{1}, uint64(len(f))), f...)...)
}

// memorySized is a memory section of min pages.
func memorySized(pages uint64) []byte {
	return section(memorySection, binary.AppendUvarint([]byte{1, 0}, pages)...)
}

// importing is a module that needs the function from.name.
func importing(from, name string) []byte {
	imports := append([]byte{1, byte(len(from))}, from...)
	imports = append(append(imports, byte(len(name))), name...)
	imports = append(imports, 0, 0) // a function of type 0
	return tiny(
		section(typeSection, 1, 0x60, 0, 0),
		section(importSection, imports...),
		section(functionSection, 1, 0),
		section(exportSection, append([]byte{1, 6}, "_start\x00\x01"...)...),
		coded())
}

// named is a command that returns at once, with a name section.
func named() []byte {
	name := append([]byte{4}, "name"...)
	name = append(name, 0, 5, 4) // the module's name: 5 bytes, a string of 4
	name = append(name, "echo"...)
	return append(command(nil), section(customSection, name...)...)
}

// Bodies of _start.
var (
	trap    = []byte{0x00}                                                                // unreachable
	divide  = []byte{0x41, 1, 0x41, 0, 0x6d, 0x1a}                                        // drop (1 / 0)
	forever = []byte{0x03, 0x40, 0x0c, 0, 0x0b}                                           // loop br 0
	recurse = []byte{0x10, 0}                                                             // call itself
	grow    = []byte{0x41, 0x80, 0x10, 0x40, 0, 0x41, 0x7f, 0x46, 0x04, 0x40, 0x00, 0x0b} // trap if memory.grow(2048 pages) is refused
	// trap unless table.grow by 16 million entries is refused
	growTable = []byte{0xd0, 0x70, 0x41, 0x80, 0x80, 0x80, 0x08, 0xfc, 0x0f, 0, 0x41, 0x7f, 0x47, 0x04, 0x40, 0x00, 0x0b}
)
