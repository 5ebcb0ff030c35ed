package rootfs

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An OCI archive whose entries claim more than may be unpacked is refused before
// anything of them is written.
func TestBoundsOfOCIArchives(t *testing.T) {
	blob := "blobs/sha256/" + strings.Repeat("a", 64)
	for name, c := range map[string]struct {
		entry string
		size  int64
		want  string
	}{
		"blob":  {blob, maxSpool + 1, "it unpacks to more than"},
		"index": {"index.json", maxIndex + 1, "index.json has"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "oci.tar")
			f, err := os.Create(file)
			if err != nil {
				t.Fatal(err)
			}
			// Only the header: what it claims is not there.
			if err := tar.NewWriter(f).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: c.entry, Size: c.size, Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "oci")
			err = unpackLayout(t.Context(), file, dir)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(c.entry))); !os.IsNotExist(err) {
				t.Errorf("%s was written: %v", c.entry, err)
			}
		})
	}
}
