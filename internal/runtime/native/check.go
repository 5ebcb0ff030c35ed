package native

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"strings"

	"nex"
)

// howStatic is the advice for binaries that want libraries of the node.
const howStatic = "link it statically, for Go with CGO_ENABLED=0"

// maxInterpreter is the most the kernel reads of a script's first line.
const maxInterpreter = 256

// Check tells whether the file at path can run on this node: a binary of the
// right format and architecture or a script, and what it needs to start with.
// What is wrong with the file is a [nex.Error] with code Invalid.
func Check(path string) error {
	needs, err := inspect(path)
	if err != nil || needs.program == "" {
		return err
	}
	if _, err := os.Stat(needs.program); err != nil {
		return refuse("needs %s to start, which this node does not have: %s", needs.program, advice(needs))
	}
	return nil
}

// CheckStatic is [Check] for machines that hold nothing but the file itself:
// it takes only binaries without dynamically linked dependencies, for the very
// processor: their filters of system calls know no other.
func CheckStatic(path string) error {
	needs, err := inspect(path)
	switch {
	case err != nil:
		return err
	case needs.narrow:
		return refuse("is a 32-bit executable; only those for %s run here", goruntime.GOARCH)
	case needs.script:
		return refuse("is a script; only statically linked binaries run here")
	case needs.program != "":
		return nex.Errorf(nex.Invalid, "file failed static link check: native binary contains at least one dynamically linked dependency (%s): %s", needs.program, howStatic)
	}
	return nil
}

// interpreter is the program that the kernel starts a file with: a dynamic
// linker or what a script names. "" means none.
type interpreter struct {
	program string
	script  bool
	narrow  bool // is for the 32-bit brother of this processor
}

func inspect(path string) (interpreter, error) {
	f, err := os.Open(path)
	if err != nil {
		return interpreter{}, fmt.Errorf("open native binary: %w", err)
	}
	defer f.Close()
	head := make([]byte, maxInterpreter)
	n, err := io.ReadFull(f, head)
	if n == 0 {
		if errors.Is(err, io.EOF) {
			return interpreter{}, refuse("is empty")
		}
		return interpreter{}, fmt.Errorf("read native binary: %w", err)
	}
	return recognise(f, head[:n])
}

func advice(needs interpreter) string {
	if needs.script {
		return "deploy a binary, or use a node that has it"
	}
	return howStatic
}

// recognise tells the formats apart by the first bytes of the file.
func recognise(f io.ReaderAt, head []byte) (interpreter, error) {
	node := goruntime.GOOS + "/" + goruntime.GOARCH
	switch format := formatOf(head); format {
	case "script":
		program := scriptInterpreter(head)
		if program == "" {
			return interpreter{}, refuse("is a script that names no interpreter after #!")
		}
		return interpreter{program: program, script: true}, nil
	case "wasm":
		return interpreter{}, refuse("is a WebAssembly module: deploy it with type wasm")
	case "":
		return interpreter{}, refuse("is not an executable: neither a binary for %s nor a script that begins with #!", node)
	case "elf":
		if goruntime.GOOS == "windows" || goruntime.GOOS == "darwin" {
			return interpreter{}, refuse("is built for linux, this node is %s", node)
		}
		return inspectELF(f)
	default: // the name of a system
		if format != goruntime.GOOS {
			return interpreter{}, refuse("is built for %s, this node is %s", format, node)
		}
		return interpreter{}, nil
	}
}

// formatOf returns elf, script, wasm, or the only system that runs such files.
func formatOf(head []byte) string {
	for _, f := range []struct{ magic, format string }{
		{elf.ELFMAG, "elf"},
		{"#!", "script"},
		{"\x00asm", "wasm"},
		{"MZ", "windows"},
		{"\xfe\xed\xfa\xce", "darwin"}, {"\xce\xfa\xed\xfe", "darwin"},
		{"\xfe\xed\xfa\xcf", "darwin"}, {"\xcf\xfa\xed\xfe", "darwin"},
		{"\xca\xfe\xba\xbe", "darwin"}, // for several architectures
	} {
		if bytes.HasPrefix(head, []byte(f.magic)) {
			return f.format
		}
	}
	return ""
}

// scriptInterpreter returns the program in the line "#! program argument".
func scriptInterpreter(head []byte) string {
	line, _ := bufio.NewReader(bytes.NewReader(head[2:])).ReadString('\n')
	if fields := strings.Fields(line); len(fields) > 0 {
		return fields[0]
	}
	return ""
}

func inspectELF(r io.ReaderAt) (interpreter, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return interpreter{}, refuse("is a damaged ELF file: %v", err)
	}
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return interpreter{}, refuse("is an ELF file that cannot be executed (%s)", f.Type)
	}
	arch := architecture(f)
	if arch != goruntime.GOARCH && !(arch == "386" && goruntime.GOARCH == "amd64") {
		return interpreter{}, refuse("is built for %s, this node is %s", arch, goruntime.GOARCH)
	}
	needs := interpreter{narrow: arch != goruntime.GOARCH}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name, err := io.ReadAll(io.LimitReader(p.Open(), maxInterpreter))
		if err != nil {
			return interpreter{}, refuse("is a damaged ELF file: %v", err)
		}
		needs.program = string(bytes.TrimRight(name, "\x00"))
		break
	}
	return needs, nil
}

// architecture returns what Go calls the machine that f is for.
func architecture(f *elf.File) string {
	little := f.Data == elf.ELFDATA2LSB
	switch f.Machine {
	case elf.EM_X86_64:
		return "amd64"
	case elf.EM_386:
		return "386"
	case elf.EM_AARCH64:
		return "arm64"
	case elf.EM_ARM:
		return "arm"
	case elf.EM_RISCV:
		return "riscv64"
	case elf.EM_S390:
		return "s390x"
	case elf.EM_LOONGARCH:
		return "loong64"
	case elf.EM_PPC64:
		if little {
			return "ppc64le"
		}
		return "ppc64"
	}
	return strings.ToLower(strings.TrimPrefix(f.Machine.String(), "EM_"))
}

func refuse(format string, args ...any) error {
	return nex.Errorf(nex.Invalid, "native binary "+format, args...)
}
