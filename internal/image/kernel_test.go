package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// object returns an ELF file for amd64 with one section.
func object(kind elf.Type, section, contents string) []byte {
	names := "\x00" + section + "\x00.shstrtab\x00"
	const header, entry = 64, 64
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) } // a buffer takes all
	put(elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1},
		Type:  uint16(kind), Machine: uint16(elf.EM_X86_64), Version: 1,
		Shoff: header + uint64(len(contents)+len(names)), Ehsize: header, Shentsize: entry, Shnum: 3, Shstrndx: 2,
	})
	b.WriteString(contents + names)
	put(elf.Section64{})
	put(elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: header, Size: uint64(len(contents))})
	put(elf.Section64{Name: uint32(len(section) + 2), Type: uint32(elf.SHT_STRTAB), Off: header + uint64(len(contents)), Size: uint64(len(names))})
	return b.Bytes()
}

func testKernel() []byte {
	return object(elf.ET_EXEC, ".text", "Linux version %s\x00Linux version 6.1.0-test (x)\n"+strings.Repeat("code", 5000))
}

// bzImage wraps a payload as a kernel's build does.
func bzImage(payload []byte) []byte {
	file := make([]byte, 2*sector)
	file[atSetupSectors] = 1
	copy(file[atHeaderMagic:], "HdrS")
	binary.LittleEndian.PutUint16(file[atVersion:], 0x020f)
	binary.LittleEndian.PutUint32(file[atPayload:], 16)
	binary.LittleEndian.PutUint32(file[atPayloadLength:], uint32(len(payload)))
	return append(append(append(file, make([]byte, 16)...), payload...), "behind it"...)
}

// payloads returns the kernel in every compression, by name.
func payloads(t testing.TB, kernel []byte) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	add := func(name string, open func(io.Writer) (io.WriteCloser, error)) {
		var b bytes.Buffer
		w, err := open(&b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(kernel); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		all[name] = b.Bytes()
		if name != "gzip" {
			all[name] = binary.LittleEndian.AppendUint32(all[name], uint32(len(kernel)))
		}
	}
	add("gzip", func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })
	add("xz", func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) })
	add("zstd", func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) })
	legacy := []byte{0x02, 0x21, 0x4c, 0x18}
	for part := range slices.Chunk(kernel, 8000) { // smaller than they are, to have several
		block := make([]byte, lz4.CompressBlockBound(len(part)))
		n, err := lz4.CompressBlock(part, block, nil)
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
		legacy = append(binary.LittleEndian.AppendUint32(legacy, uint32(n)), block[:n]...)
	}
	all["lz4"] = binary.LittleEndian.AppendUint32(legacy, uint32(len(kernel)))
	return all
}

func TestKernelsAreUnpacked(t *testing.T) {
	want := testKernel()
	files := map[string][]byte{"elf": want}
	for name, payload := range payloads(t, want) {
		files[name] = bzImage(payload)
	}
	for name, file := range files {
		got, err := vmlinux(file)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want %d (%v)", name, len(got), len(want), err)
		}
	}
	if v := banner(want); v != "6.1.0-test" {
		t.Errorf("it says it is %q", v)
	}
}

func TestBadKernelsAreRefused(t *testing.T) {
	good := payloads(t, testKernel())
	lie := bytes.Clone(good["lz4"])
	binary.LittleEndian.PutUint32(lie[len(lie)-4:], 1<<31)
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"nothing":       {nil, "neither an ELF kernel"},
		"a script":      {bytes.Repeat([]byte("#!/bin/sh\n"), 100), "neither an ELF kernel"},
		"cut off":       {bzImage(good["lz4"])[:1100], "cut off"},
		"lzo":           {bzImage([]byte("\x89LZO\x00\x00\x00\x00\x00")), "not known"},
		"too large":     {bzImage(lie), "more than"},
		"no kernel":     {object(elf.ET_REL, ".text", "x"), "not an executable"},
		"no ELF inside": {bzImage(payloads(t, bytes.Repeat([]byte("text"), 900))["zstd"]), "not an ELF file"},
	} {
		if _, err := vmlinux(c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzVmlinux(f *testing.F) {
	for _, payload := range payloads(f, testKernel()) {
		f.Add(bzImage(payload))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		if got, err := vmlinux(file); err == nil && len(got) > maxKernel {
			t.Errorf("%d bytes of kernel", len(got))
		}
	})
}

// kernelTree makes the directory of a kernel's package, with modules that need
// each other, some of them compressed.
func kernelTree(t testing.TB, modules map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string][]byte{
		"boot/vmlinuz-6.1.0-test":                   bzImage(payloads(t, testKernel())["lz4"]),
		"lib/modules/6.1.0-test/modules.builtin":    []byte("kernel/drivers/char/hw_random/rng-core.ko\n"),
		"lib/modules/6.1.0-test/kernel/fs/other.ko": object(elf.ET_REL, ".modinfo", "depends=\x00"),
	}
	for name, needs := range modules {
		data := object(elf.ET_REL, ".modinfo", "license=GPL\x00depends="+needs+"\x00")
		path := "lib/modules/6.1.0-test/kernel/" + name
		if strings.HasSuffix(name, ".xz") {
			var b bytes.Buffer
			w, err := xz.NewWriter(&b)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(data); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			data = b.Bytes()
		}
		files[path] = data
	}
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var usualModules = map[string]string{
	"virtio.ko": "virtio_ring", "virtio_ring.ko": "", "virtio_mmio.ko": "virtio,virtio_ring", "virtio_blk.ko": "virtio_ring,virtio",
	"virtio_console.ko": "virtio", "overlay.ko.xz": "", "net_failover.ko": "failover", "failover.ko": "", "virtio_net.ko.xz": "net-failover,virtio",
	"virtio-rng.ko": "virtio,rng_core",
}

func TestModulesComeInOrder(t *testing.T) {
	k, err := kernelFromDirectory(kernelTree(t, usualModules))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range k.modules {
		got = append(got, m.name)
	}
	want := []string{"virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "virtio_console", "overlay", "failover", "net_failover", "virtio_net", "virtio_rng"}
	if !slices.Equal(got, want) || k.version != "6.1.0-test" {
		t.Errorf("kernel %s has modules\n  %v, want\n  %v", k.version, got, want)
	}
}

func TestModulesThatAreMissing(t *testing.T) {
	for name, c := range map[string]struct{ change, needs, want string }{
		"needed by guests":   {"overlay.ko.xz", "gone", "no module gone, which overlay needs"},
		"need each other":    {"virtio_ring.ko", "virtio", "need each other"},
		"built in, so right": {"overlay.ko.xz", "rng_core", ""},
	} {
		modules := map[string]string{}
		for n, needs := range usualModules {
			modules[n] = needs
		}
		modules[c.change] = c.needs
		_, err := kernelFromDirectory(kernelTree(t, modules))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// deb returns a Debian package with the files in a directory.
func deb(t testing.TB, dir, ending string) []byte {
	t.Helper()
	var data bytes.Buffer
	var out io.WriteCloser
	var err error
	switch ending {
	case ".xz":
		out, err = xz.NewWriter(&data)
	case ".zst":
		out, err = zstd.NewWriter(&data)
	default:
		out = gzip.NewWriter(&data)
	}
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(out)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	b.WriteString("!<arch>\n")
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar.xz", []byte("odd")}, {"data.tar" + ending, data.Bytes()}} {
		fmt.Fprintf(&b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, 0, 0, 0, "100644", len(m.data))
		b.Write(m.data)
		if len(m.data)%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

func TestPackagesAreUnpacked(t *testing.T) {
	dir := kernelTree(t, usualModules)
	for _, ending := range []string{".xz", ".zst", ".gz"} {
		path := filepath.Join(t.TempDir(), "kernel.deb")
		if err := os.WriteFile(path, deb(t, dir, ending), 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := kernelFromPackage(t.Context(), path, t.TempDir())
		if err != nil || k.version != "6.1.0-test" || len(k.modules) != 10 || k.sha256 == "" {
			t.Errorf("%s: kernel %q with %d modules (%v)", ending, k.version, len(k.modules), err)
		}
	}
}

// FuzzDeb unpacks packages with damage; nothing may get out of the directory.
func FuzzDeb(f *testing.F) {
	dir := kernelTree(f, map[string]string{"overlay.ko": ""})
	for _, ending := range []string{".xz", ".zst", ".gz"} {
		f.Add(deb(f, dir, ending))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		top := t.TempDir()
		_ = unpackDeb(t.Context(), bytes.NewReader(data), filepath.Join(top, "in")) // any error is fine
		entries, err := os.ReadDir(top)
		if err != nil || len(entries) > 1 || len(entries) == 1 && entries[0].Name() != "in" {
			t.Errorf("it left %v (%v)", entries, err)
		}
	})
}

func TestReleasesAreComparedAsNumbers(t *testing.T) {
	rising := []string{"5.10.0-9-cloud-amd64", "5.10.0-56-cloud-amd64", "6.1.0-9-amd64", "6.1.0-9-cloud-amd64", "6.1.0-10-cloud-amd64", "6.1.0-10-cloud-amd64+deb12", "6.1.1", "6.10.0", "10.0.0"}
	for i, a := range rising {
		for j, b := range rising {
			if got := compareReleases(a, b); got != cmp.Compare(i, j) {
				t.Errorf("%s and %s: %d", a, b, got)
			}
		}
	}
}
