package rootfs

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
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

// layoutOf returns an OCI archive with an image of one layer. In the texts @manifest,
// @config and @layer stand for the digests of those.
func layoutOf(index, manifest, config string, layer []byte) []byte {
	digest := func(data []byte) string {
		sum := sha256.Sum256(data)
		return hex.EncodeToString(sum[:])
	}
	replace := func(text, what, digest string) string { return strings.ReplaceAll(text, what, "sha256:"+digest) }
	config = replace(config, "@layer", digest(layer))
	manifest = replace(replace(manifest, "@layer", digest(layer)), "@config", digest([]byte(config)))
	index = replace(index, "@manifest", digest([]byte(manifest)))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, file := range []struct{ name, data string }{
		{"oci-layout", `{"imageLayoutVersion": "1.0.0"}`}, {"index.json", index}, {"blobs/sha256/" + digest([]byte(manifest)), manifest},
		{"blobs/sha256/" + digest([]byte(config)), config}, {"blobs/sha256/" + digest(layer), string(layer)},
	} {
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: file.name, Size: int64(len(file.data)), Mode: 0o644})
		if _, failed := w.Write([]byte(file.data)); err != nil || failed != nil {
			panic("an archive in memory cannot be written")
		}
	}
	_ = w.Close() // is in memory
	return b.Bytes()
}

// An image in small, for layoutOf.
const (
	oneIndex    = `{"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "@manifest", "size": 1}]}`
	oneManifest = `{"schemaVersion": 2, "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "@config", "size": 1}, "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "@layer", "size": 1}]}`
	oneConfig   = `{"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": ["@layer"]}}`
)

// TestBoundsOfOCILayouts: what a layout has is looked at before it is read, in a
// directory as in an archive.
func TestBoundsOfOCILayouts(t *testing.T) {
	layer := archive(t, "a=1")
	grow := func(path string, size int64) error { return os.Truncate(path, size) } // by a hole
	for name, c := range map[string]struct {
		file   string // which of them, as in layoutOf
		change func(path string) error
		want   string
	}{
		"whole":           {"index", func(string) error { return nil }, ""},
		"index":           {"index", func(p string) error { return grow(p, maxIndex+1) }, "more than 4194304"},
		"manifest":        {"manifest", func(p string) error { return grow(p, maxIndex+1) }, "more than 4194304"},
		"configuration":   {"config", func(p string) error { return grow(p, maxIndex+1) }, "more than 4194304"},
		"layer":           {"layer", func(p string) error { return grow(p, maxSpool+1) }, "more than 68719476736"},
		"a dir for layer": {"layer", func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) }, "is no file"},
		"no manifest":     {"manifest", os.Remove, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			file, dir := filepath.Join(t.TempDir(), "oci.tar"), filepath.Join(t.TempDir(), "oci")
			if err := os.WriteFile(file, layoutOf(oneIndex, oneManifest, oneConfig, layer), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := unpackLayout(t.Context(), file, dir); err != nil {
				t.Fatal(err)
			}
			whole, err := fromLayout(dir)
			if err != nil {
				t.Fatal(err)
			}
			m, err := whole.Manifest()
			if err != nil {
				t.Fatal(err)
			}
			digest, err := whole.Digest()
			if err != nil {
				t.Fatal(err)
			}
			path := map[string]string{"index": "index.json", "manifest": "blobs/sha256/" + digest.Hex, "config": "blobs/sha256/" + m.Config.Digest.Hex, "layer": "blobs/sha256/" + m.Layers[0].Digest.Hex}[c.file]
			if err := c.change(filepath.Join(dir, filepath.FromSlash(path))); err != nil {
				t.Fatal(err)
			}
			tr := emptyTree(t)
			_, err = tr.addBase(t.Context(), Options{Base: dir, Progress: func(string, int64, int64) {}}, "")
			if c.want == "" && (err != nil || tr.find("/a", false) == nil) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// FuzzLayout builds from OCI archives with any texts and any layer, and from any
// bytes at all. Nothing but what a layout has may be written, and nothing elsewhere.
func FuzzLayout(f *testing.F) {
	f.Add(oneIndex, oneManifest, oneConfig, archive(f, "a=1", "d/"), []byte{})
	f.Add(strings.ReplaceAll(oneIndex, "image.manifest", "image.index"), oneIndex, oneConfig, []byte{0x1f, 0x8b}, []byte{})
	f.Add("{", "", "", []byte{}, archive(f, "index.json={}", "../evil=1", "blobs/sha256/../../../evil=1", "oci-layout->/etc/passwd"))
	f.Fuzz(func(t *testing.T, index, manifest, config string, layer, raw []byte) {
		top := t.TempDir()
		file, dir := filepath.Join(top, "oci.tar"), filepath.Join(top, "oci")
		for _, data := range [][]byte{layoutOf(index, manifest, config, layer), raw} {
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := unpackLayout(t.Context(), file, dir); err != nil {
				continue
			}
			tr := emptyTree(t)
			_, _ = tr.addBase(t.Context(), Options{Base: dir, Progress: func(string, int64, int64) {}}, "") // any error is fine
		}
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			name, _ := filepath.Rel(top, path) // both begin alike
			name = filepath.ToSlash(name)
			switch {
			case err != nil:
				return err
			case d.IsDir(), name == "oci.tar", name == "oci/index.json", name == "oci/oci-layout", blobName.MatchString(strings.TrimPrefix(name, "oci/")):
				return nil
			}
			return fmt.Errorf("%s was written", name)
		})
		if err != nil {
			t.Error(err)
		}
	})
}
