package main

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"nex"
)

// source is a file to deploy and what it is.
type source struct {
	path    string
	name    string // of the workload
	key     string // in the upload bucket
	typ     nex.WorkloadType
	os      string // what a service needs, "" for functions
	arch    string
	dynamic bool // an executable that needs libraries of its host
	data    []byte
	size    int64 // bytes
	sha256  string
}

// readSource reads a file and finds out what it is, unless typ says so.
func readSource(path string, typ nex.WorkloadType, name string) (source, error) {
	data, err := readFile(path)
	if err != nil {
		return source{}, err
	}
	sum := sha256.Sum256(data)
	f := source{path: path, data: data, size: int64(len(data)), sha256: hex.EncodeToString(sum[:])}
	f.key = strings.ReplaceAll(filepath.Base(path), ".", "")
	f.name = name
	if name == "" {
		f.name = f.key
	}
	if !nex.ValidName(f.name) {
		return source{}, fmt.Errorf("%q cannot be a workload's name (letters, digits, - and _ only): choose one with --name", f.name)
	}
	typ = typeNamed(string(typ))
	f.typ, err = detect(path, data)
	if typ != "" {
		f.typ, err = typ, nil
	}
	if err != nil {
		return source{}, err
	}
	if f.typ == nex.Native {
		err = f.platform()
	}
	return f, err
}

// typeNamed is the type that a user calls s.
func typeNamed(s string) nex.WorkloadType {
	if s == "elf" { // until Nex 0.2.3
		return nex.Native
	}
	return nex.WorkloadType(s)
}

// maxSource is the largest file that is read to be deployed, in bytes.
const maxSource = 1 << 30

// readFile reads a regular file of a sane size.
func readFile(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read workload: %w", err)
	case !fi.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", path)
	case fi.Size() == 0:
		return nil, fmt.Errorf("%s is empty", path)
	case fi.Size() > maxSource:
		return nil, fmt.Errorf("%s has %d bytes: the limit is %d", path, fi.Size(), maxSource)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read workload: %w", err)
	}
	return data, nil
}

var magics = []struct {
	bytes string
	typ   nex.WorkloadType
}{
	{"\x7fELF", nex.Native}, {"MZ", nex.Native}, {"\xcf\xfa\xed\xfe", nex.Native}, {"\x00asm", nex.Wasm},
}

// detect tells the type from the first bytes, else from the extension.
func detect(path string, data []byte) (nex.WorkloadType, error) {
	for _, m := range magics {
		if bytes.HasPrefix(data, []byte(m.bytes)) {
			return m.typ, nil
		}
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".js", ".mjs", ".cjs":
		return nex.V8, nil
	case ".wasm":
		return "", fmt.Errorf("%s is not a WebAssembly module: it does not begin with \\0asm", path)
	}
	return "", fmt.Errorf("%s: unknown file type: want an executable, a .js file or a .wasm module, or say with --type", path)
}

// platform reads from an executable where it runs.
func (f *source) platform() error {
	switch {
	case bytes.HasPrefix(f.data, []byte("\x7fELF")):
		return f.readELF()
	case bytes.HasPrefix(f.data, []byte("MZ")):
		return f.readPE()
	case bytes.HasPrefix(f.data, []byte("#!")): // a script, for nodes without a sandbox
		f.dynamic = true
	case bytes.HasPrefix(f.data, []byte("\xcf\xfa\xed\xfe")):
		f.os = "darwin"
		if len(f.data) > 8 {
			f.arch = map[uint32]string{0x01000007: "amd64", 0x0100000c: "arm64"}[binary.LittleEndian.Uint32(f.data[4:])]
		}
	default:
		return fmt.Errorf("%s is no executable: a service is an ELF, Mach-O or Windows executable, or a script with #! in front", f.path)
	}
	return nil
}

func (f *source) readELF() error {
	e, err := elf.NewFile(bytes.NewReader(f.data))
	if err != nil {
		return fmt.Errorf("%s is a damaged executable: %w", f.path, err)
	}
	f.os = "linux"
	f.arch = map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[e.Machine]
	if f.arch == "" || e.Class != elf.ELFCLASS64 {
		return fmt.Errorf("%s is built for %s %s: nodes run 64-bit executables for amd64 and arm64", f.path, e.Class, e.Machine)
	}
	if e.Type != elf.ET_EXEC && e.Type != elf.ET_DYN {
		return fmt.Errorf("%s is no executable but of ELF type %s", f.path, e.Type)
	}
	for _, p := range e.Progs {
		f.dynamic = f.dynamic || p.Type == elf.PT_INTERP
	}
	return nil
}

func (f *source) readPE() error {
	f.os = "windows"
	const where = 0x3c // offset of the PE header's offset
	if len(f.data) < where+4 {
		return fmt.Errorf("%s is a damaged Windows executable", f.path)
	}
	at := int(binary.LittleEndian.Uint32(f.data[where:]))
	if at < 0 || at+6 > len(f.data) {
		return fmt.Errorf("%s is a damaged Windows executable", f.path)
	}
	f.arch = map[uint16]string{0x8664: "amd64", 0xaa64: "arm64"}[binary.LittleEndian.Uint16(f.data[at+4:])]
	return nil
}
