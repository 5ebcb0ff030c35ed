//go:build unix

package native

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	"nex"
	"nex/internal/runtime"
)

// binaryFor makes a small ELF file: a header, its program headers and, for
// amd64, code that exits with status 7.
func binaryFor(machine elf.Machine, kind elf.Type, loader string) []byte {
	const base, headers = 0x400000, 64 + 2*56
	code := []byte{0xb8, 60, 0, 0, 0, 0xbf, 7, 0, 0, 0, 0x0f, 0x05} // exit(7)
	size := uint64(headers + len(code) + len(loader))
	progs := []elf.Prog64{
		{Type: uint32(elf.PT_LOAD), Flags: 5, Vaddr: base, Filesz: size, Memsz: size, Align: 4096},
		{Type: uint32(elf.PT_NULL)},
	}
	if loader != "" {
		n := uint64(len(loader))
		progs[1] = elf.Prog64{Type: uint32(elf.PT_INTERP), Off: size - n, Filesz: n, Memsz: n}
	}
	header := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1},
		Type:  uint16(kind), Machine: uint16(machine), Version: 1, Entry: base + headers,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 2, Shentsize: 64,
	}
	var out bytes.Buffer
	for _, part := range []any{header, progs, code, []byte(loader)} {
		_ = binary.Write(&out, binary.LittleEndian, part) // into memory: cannot fail
	}
	return out.Bytes()
}

// here and elsewhere are the machine of this node and another one.
func here() (here elf.Machine, elsewhere elf.Machine, elsewhereName string) {
	if goruntime.GOARCH == "arm64" {
		return elf.EM_AARCH64, elf.EM_X86_64, "amd64"
	}
	return elf.EM_X86_64, elf.EM_AARCH64, "arm64"
}

func needLinux(t *testing.T) {
	t.Helper()
	if goruntime.GOOS != "linux" || goruntime.GOARCH != "amd64" && goruntime.GOARCH != "arm64" {
		t.Skip("checks what linux on amd64 and arm64 runs")
	}
}

func write(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheck(t *testing.T) {
	needLinux(t)
	machine, other, otherName := here()
	loader := write(t, []byte("any file"))
	static := binaryFor(machine, elf.ET_EXEC, "")
	const dynamic = "contains at least one dynamically linked dependency ("
	for _, c := range []struct {
		name, content string
		run, isolated string // what Check and CheckStatic say, "" for nothing
	}{
		{"static", string(static), "", ""},
		{"static and relocatable", string(binaryFor(machine, elf.ET_DYN, "")), "", ""},
		{"dynamic", string(binaryFor(machine, elf.ET_EXEC, loader+"\x00")), "", dynamic + loader + "): " + howStatic},
		{"dynamic, loader missing", string(binaryFor(machine, elf.ET_DYN, "/no/ld.so\x00")),
			"needs /no/ld.so to start, which this node does not have: " + howStatic, dynamic + "/no/ld.so): " + howStatic},
		{"other architecture", string(binaryFor(other, elf.ET_EXEC, "")),
			"is built for " + otherName + ", this node is " + goruntime.GOARCH, "same"},
		{"exotic architecture", string(binaryFor(elf.EM_SPARCV9, elf.ET_EXEC, "")),
			"is built for sparcv9, this node is " + goruntime.GOARCH, "same"},
		{"object file", string(binaryFor(machine, elf.ET_REL, "")), "is an ELF file that cannot be executed (ET_REL)", "same"},
		{"cut ELF", string(static[:30]), "is a damaged ELF file: ", "same"},
		{"empty", "", "is empty", "same"},
		{"text", "hello", "is not an executable: neither a binary for linux/" + goruntime.GOARCH + " nor a script that begins with #!", "same"},
		{"one byte", "x", "is not an executable: ", "same"},
		{"script", "#!/bin/sh\n", "", "is a script; only statically linked binaries run here"},
		{"script with spaces", "#! /bin/sh -e\nexit", "", "is a script; only statically linked binaries run here"},
		{"script, interpreter missing", "#!/no/python3 -u\n",
			"needs /no/python3 to start, which this node does not have: deploy a binary, or use a node that has it", "is a script; only statically linked binaries run here"},
		{"script without interpreter", "#!\n", "is a script that names no interpreter after #!", "same"},
		{"Windows", "MZ\x90\x00", "is built for windows, this node is linux/" + goruntime.GOARCH, "same"},
		{"macOS", "\xcf\xfa\xed\xfe", "is built for darwin, this node is linux/" + goruntime.GOARCH, "same"},
		{"WebAssembly", "\x00asm\x01\x00\x00\x00", "is a WebAssembly module: deploy it with type wasm", "same"},
	} {
		path := write(t, []byte(c.content))
		if c.isolated == "same" {
			c.isolated = c.run
		}
		wantRefusal(t, c.name, Check(path), c.run)
		wantRefusal(t, c.name+", isolated", CheckStatic(path), c.isolated)
	}
	if err := Check(filepath.Join(t.TempDir(), "missing")); nex.CodeOf(err) != nex.Internal {
		t.Errorf("missing file: %v", err)
	}
}

func wantRefusal(t *testing.T, name string, err error, text string) {
	t.Helper()
	switch {
	case text == "" && err != nil:
		t.Errorf("%s: refused: %v", name, err)
	case text != "" && (nex.CodeOf(err) != nex.Invalid || !strings.Contains(err.Error(), "native binary "+text)):
		t.Errorf("%s: error %v, want invalid: %q", name, err, text)
	}
}

// The static binary of these tests is real: it runs.
func TestStaticBinaryRuns(t *testing.T) {
	needLinux(t)
	if goruntime.GOARCH != "amd64" {
		t.Skip("the binary holds amd64 code")
	}
	o, _ := script(t, "")
	o.Path, o.Static = write(t, binaryFor(elf.EM_X86_64, elf.ET_EXEC, "")), true
	if exit := wait(t, mustStart(t, o)); exit != (runtime.Exit{Code: 7}) {
		t.Errorf("exit %v, want 7", exit)
	}
}

// The file comes from outside.
func FuzzRecognise(f *testing.F) {
	machine, other, _ := here()
	f.Add(binaryFor(machine, elf.ET_EXEC, "/lib/ld.so\x00"))
	f.Add(binaryFor(other, elf.ET_DYN, ""))
	f.Add([]byte("#! /bin/sh -e\n"))
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, content []byte) {
		head := content[:min(len(content), maxInterpreter)]
		needs, err := recognise(bytes.NewReader(content), head)
		if err != nil && nex.CodeOf(err) != nex.Invalid {
			t.Errorf("error %v with code %q", err, nex.CodeOf(err))
		}
		if err == nil && needs.script && needs.program == "" {
			t.Error("a script without an interpreter passes")
		}
	})
}
