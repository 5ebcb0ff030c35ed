package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"nex/internal/confine"
	"nex/internal/nextest"
)

func TestMain(m *testing.M) {
	if err := confine.BeStep(); err != nil { // the test binary is what runs build steps, too
		os.Exit(1)
	}
	if text := os.Getenv(buildVariable); text != "" {
		os.Exit(buildHere(text))
	}
	nextest.Main(m)
}

// buildVariable names the environment variable that has the test binary only
// build: what else the environment of a build may have is then a process's of its own.
const buildVariable = "NEX_TEST_ROOTFS_BUILD"

// input are the options of such a build.
type input struct {
	Base, Agent, Script, Output string
	Size                        int64
	Run                         []string
	NoSum                       bool
}

// buildHere builds what an input in JSON says, prints the result and returns the
// exit code.
func buildHere(text string) int {
	var in input
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	r, err := Build(context.Background(), Options{Base: in.Base, Agent: in.Agent, Script: in.Script, Output: in.Output, Size: in.Size, Run: in.Run, Sum: !in.NoSum, Printed: os.Stderr})
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// fsck fails the test if e2fsck finds fault with a file system.
func fsck(t *testing.T, path string) {
	t.Helper()
	if out, err := exec.Command(nextest.Program(t, "e2fsck"), "-fn", path).CombinedOutput(); err != nil {
		t.Fatalf("e2fsck: %v\n%s", err, out)
	}
}

// debugfs returns what debugfs prints for a request.
func debugfs(t *testing.T, path, request string) string {
	t.Helper()
	out, err := exec.Command(nextest.Program(t, "debugfs"), "-R", request, path).Output()
	if err != nil {
		t.Fatalf("debugfs %s: %v", request, err)
	}
	return string(out)
}

// written writes a tree and returns the path of the file system.
func written(t *testing.T, tr *tree, size int64) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "x.ext4"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // was written to
	if err := tr.writeExt4(t.Context(), f, size, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func TestEmptyIsClean(t *testing.T) {
	for _, size := range []int64{64 << 10, 128 << 10, 1 << 20, 128 << 20, 128<<20 + 4096, 150 << 20, 1<<30 + 12345, 17 << 30} {
		path := filepath.Join(t.TempDir(), "e.ext4")
		if err := Empty(t.Context(), path, size); err != nil {
			t.Errorf("%d: %v", size, err)
			continue
		}
		fsck(t, path)
		if info, err := os.Stat(path); err != nil || info.Size() != size/blockSize*blockSize || info.Mode().Perm() != 0o600 {
			t.Errorf("%d: made %v (%v)", size, info, err)
		}
		if err := Empty(t.Context(), path, size); !errors.Is(err, os.ErrExist) {
			t.Errorf("made again over what is there: %v", err)
		}
	}
	if err := Empty(t.Context(), filepath.Join(t.TempDir(), "e.ext4"), 4096); err == nil {
		t.Error("made a file system in one block")
	}
}

// TestEverythingArrives writes one of each and asks debugfs, which is not ours.
func TestEverythingArrives(t *testing.T) {
	tr := emptyTree(t)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	long := "/" + strings.Repeat("long/", 40)
	for _, h := range []*tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o751},
		{Name: "dir/", Typeflag: tar.TypeDir, Mode: 0o2750, Uid: 7, Gid: 70000},
		{Name: "dir/file", Typeflag: tar.TypeReg, Mode: 0o4711, Uid: 70000, Gid: 8, Size: 5},
		{Name: "dir/again", Typeflag: tar.TypeLink, Linkname: "dir/file"},
		{Name: "short", Typeflag: tar.TypeSymlink, Linkname: "dir/file"},
		{Name: "long", Typeflag: tar.TypeSymlink, Linkname: long},
		{Name: "null", Typeflag: tar.TypeChar, Mode: 0o666, Devmajor: 1, Devminor: 3},
		{Name: "disk", Typeflag: tar.TypeBlock, Mode: 0o660, Devmajor: 259, Devminor: 300},
		{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o600},
		{Name: "cap", Typeflag: tar.TypeReg, Mode: 0o755, PAXRecords: map[string]string{
			xattrKey + "security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
			xattrKey + "user.note":           strings.Repeat("n", 500),
			xattrKey + "system.other":        "not ours",
		}},
		{Name: "acl", Typeflag: tar.TypeReg, Mode: 0o640, PAXRecords: map[string]string{
			// u::rw- u:1000:r-- g::r-- m::r-- o::---
			xattrKey + aclAccess: "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00" +
				"\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff",
		}},
	} {
		h.ModTime, h.Format = epoch.AddDate(50, 0, 0), tar.FormatPAX
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "hello"[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := tr.addLayer(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	path := written(t, tr, 2<<20)
	fsck(t, path)
	for request, wants := range map[string][]string{
		"stat /":         {"Mode:  0751"},
		"stat /dir":      {"Mode:  02750", "User:     7   Group: 70000"},
		"stat /dir/file": {"Mode:  04711", "User: 70000   Group:     8", "Links: 2", "mtime: 0x5e0be100"},
		"cat /dir/again": {"hello"},
		"stat /short":    {`Fast link dest: "dir/file"`},
		"cat /long":      {long},
		"stat /null":     {"Type: character special", "number: 01:03", "Mode:  0666"},
		"stat /disk":     {"Type: block special", "Mode:  0660", "259:300"},
		"stat /pipe":     {"Type: FIFO"},
		"ea_list /acl":   {"01 00 00 00 01 00 06 00 02 00 04 00 e8 03 00 00 04 00 04 00 10 00 04 00 20 00 00 00"},
		"ea_list /cap":   {"security.capability (20)", "user.note (500)"},
	} {
		got := debugfs(t, path, request)
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s says\n%s\nwant %q in it", request, got, want)
			}
		}
		if strings.Contains(got, "system.other") {
			t.Errorf("%s says\n%s", request, got)
		}
	}
}

func TestWhatWasWrittenIsReadAgain(t *testing.T) {
	tr := emptyTree(t)
	random := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(random) // returns no error
	copy(random[1<<20:], make([]byte, 1<<20))        // a hole
	if err := tr.write("/usr/lib/big", 0o755, random); err != nil {
		t.Fatal(err)
	}
	many := 3000 // several blocks of a directory
	for i := range many {
		if err := tr.write("/many/"+strings.Repeat("n", i%200)+string(rune('a'+i%26))+strconv.Itoa(i), 0o644, []byte(strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"/lib": "usr/lib", "/l1": "/lib/../../l2", "/l2": strings.Repeat("./", 40) + "lib/big"} {
		if err := tr.put(name, symlink(target)); err != nil {
			t.Fatal(err)
		}
	}
	path := written(t, tr, 20<<20)
	fsck(t, path)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // was only read
	fs, err := openExt4(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/usr/lib/big", "lib/big", "/l1", "/../l2"} {
		i, err := fs.find(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := io.ReadAll(fs.open(i)); err != nil || !bytes.Equal(got, random) {
			t.Errorf("%s: read %d bytes that differ (%v)", name, len(got), err)
		}
	}
	for i := 0; i < many; i += 37 {
		i0, err := fs.find("/many/" + strings.Repeat("n", i%200) + string(rune('a'+i%26)) + strconv.Itoa(i))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(fs.open(i0)); err != nil || string(got) != strconv.Itoa(i) {
			t.Errorf("file %d holds %q (%v)", i, got, err)
		}
	}
	if _, err := fs.find("/nothing"); !errors.Is(err, errNoFile) {
		t.Errorf("a file that is not there: %v", err)
	}
	if allocated := allocatedBytes(t, path); allocated > 18<<20 {
		t.Errorf("the file takes %d bytes: zeros are no holes", allocated)
	}
}

// TestGrows has resize2fs make it larger and smaller, as users may.
func TestGrows(t *testing.T) {
	tr := emptyTree(t)
	if err := tr.write("/file", 0o644, []byte("kept")); err != nil {
		t.Fatal(err)
	}
	path := written(t, tr, 10<<20)
	for _, size := range []string{"400M", "20M"} {
		if out, err := exec.Command(nextest.Program(t, "resize2fs"), path, size).CombinedOutput(); err != nil {
			t.Fatalf("resize2fs %s: %v\n%s", size, err, out)
		}
		fsck(t, path)
	}
	if got := debugfs(t, path, "cat /file"); got != "kept" {
		t.Errorf("the file holds %q", got)
	}
}

func TestTooSmallSaysHowMuch(t *testing.T) {
	tr := emptyTree(t)
	if err := tr.write("/file", 0o644, bytes.Repeat([]byte("x"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{64 << 10, 1 << 20, 1<<20 + 8192} {
		f, err := os.Create(filepath.Join(t.TempDir(), "x.ext4"))
		if err != nil {
			t.Fatal(err)
		}
		err = tr.writeExt4(t.Context(), f, size, func(int64) {})
		_ = f.Close() // is of no use
		var small *TooSmallError
		if !errors.As(err, &small) || small.Size != size || small.Need <= 1<<20 || small.Need > 3<<20 {
			t.Fatalf("%d bytes for a file of 1 MiB: %v", size, err)
		}
		fsck(t, written(t, tr, small.Need))
	}
}

// FuzzReadExt4 reads from file systems with damage.
func FuzzReadExt4(f *testing.F) {
	path := filepath.Join(f.TempDir(), "x.ext4")
	if err := Empty(f.Context(), path, 256<<10); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(superblockAt), []byte{1, 2, 3}, uint32(blockSize), []byte{9})
	f.Add(uint32(3*blockSize), []byte{255, 255}, uint32(2*blockSize), []byte{12, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, at uint32, change []byte, at2 uint32, change2 []byte) {
		image := bytes.Clone(good)
		copy(image[int(at)%len(image):], change)
		copy(image[int(at2)%len(image):], change2)
		fs, err := openExt4(bytes.NewReader(image))
		if err != nil {
			return
		}
		_, _ = fs.facts(t.Context()) // any error is fine
	})
}
