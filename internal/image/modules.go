package image

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxModule bounds a kernel module, in bytes.
const maxModule = 64 << 20

// module is a kernel module as it goes into an initramfs.
type module struct {
	name     string
	data     []byte
	required bool
}

// wanted are the modules that guests need, if they are not built into the kernel,
// and those they can do without.
var wanted = []struct {
	name     string
	required bool
}{
	{"virtio_mmio", true}, {"virtio_blk", true}, {"virtio_console", true}, {"overlay", true},
	{"virtio_net", true}, {"virtio_rng", false}, {"vmw_vsock_virtio_transport", false},
}

// modulesOf returns the modules that guests need from a directory of a kernel's
// modules, as /lib/modules/VERSION, in the order in which to load them. What needs
// what is read from the modules themselves: packages have no modules.dep, which is
// made where they are installed.
func modulesOf(dir string) ([]module, error) {
	s := &moduleSet{files: map[string]string{}, builtin: map[string]bool{}, have: map[string]bool{}}
	if err := s.scan(dir); err != nil {
		return nil, err
	}
	for _, w := range wanted {
		if err := s.take(w.name, w.required, nil); err != nil {
			return nil, err
		}
	}
	return s.order, nil
}

type moduleSet struct {
	files   map[string]string // paths by name
	builtin map[string]bool
	have    map[string]bool
	order   []module
}

func (s *moduleSet) scan(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for line := range strings.Lines(string(text)) {
		s.builtin[moduleName(strings.TrimSpace(line))] = true
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if name := moduleName(path); name != "" {
				s.files[name] = path
			}
		}
		return err
	})
}

// moduleName returns the name of the module in a file, "" if there is none: the
// kernel takes - and _ for the same.
func moduleName(path string) string {
	name, kind, _ := strings.Cut(filepath.Base(path), ".")
	if kind != "ko" && !strings.HasPrefix(kind, "ko.") {
		return ""
	}
	return strings.ReplaceAll(name, "-", "_")
}

// take adds a module behind those it needs. by are the modules that led to it.
func (s *moduleSet) take(name string, required bool, by []string) error {
	switch {
	case s.have[name] || s.builtin[name]:
		return nil
	case slices.Contains(by, name):
		return fmt.Errorf("kernel modules %s need each other", strings.Join(by, ", "))
	}
	path, ok := s.files[name]
	switch {
	case !ok && !required:
		return nil
	case !ok && len(by) > 0:
		return fmt.Errorf("the kernel has no module %s, which %s needs", name, by[len(by)-1])
	case !ok:
		return fmt.Errorf("the kernel has no module %s, which guests need, and has not got it built in", name)
	}
	data, err := readModule(path)
	if err != nil {
		return err
	}
	needs, err := dependencies(data)
	if err != nil {
		return fmt.Errorf("kernel module %s: %w", filepath.Base(path), err)
	}
	for _, need := range needs {
		if err := s.take(need, required, append(by, name)); err != nil {
			return err
		}
	}
	s.have[name] = true
	s.order = append(s.order, module{name: name, data: data, required: required})
	return nil
}

// readModule returns a module, unpacked.
func readModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // was only read
	var r io.Reader = f
	switch filepath.Ext(path) {
	case ".ko":
	case ".xz":
		r, err = xz.ReaderConfig{DictCap: maxDictionary}.NewReader(f)
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxDictionary)); err == nil {
			defer d.Close()
			r = d
		}
	default:
		err = errors.New("it is compressed in a way that is not known")
	}
	if err != nil {
		return nil, fmt.Errorf("kernel module %s: %w", path, err)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("kernel module %s: %w", path, err)
	case len(data) > maxModule:
		return nil, fmt.Errorf("kernel module %s has more than %d bytes", path, maxModule)
	}
	return data, nil
}

// dependencies returns the names of the modules that a module needs first, as its
// section .modinfo has them.
func dependencies(data []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	var names []string
	for entry := range strings.SplitSeq(string(info), "\x00") {
		if value, ok := strings.CutPrefix(entry, "depends="); ok {
			names = append(names, strings.Split(value, ",")...)
		}
	}
	for i := range names {
		names[i] = strings.ReplaceAll(names[i], "-", "_")
	}
	return slices.DeleteFunc(names, func(name string) bool { return name == "" }), nil
}
