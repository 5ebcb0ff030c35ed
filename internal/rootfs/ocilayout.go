package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

var blobName = regexp.MustCompile(`^blobs/sha256/[0-9a-f]{64}$`)

// Bounds of an OCI archive. Its index is read into memory.
const (
	maxIndex = 4 << 20 // bytes
	maxBlobs = 16 << 10
)

// unpackLayout puts the files of an OCI archive into dir. Sizes are compared with
// what is left of maxSpool before a file is written: holes of sparse entries take
// nothing in the archive, and would fill the disk.
func unpackLayout(ctx context.Context, file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // was only read
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
		return err
	}
	archive := tar.NewReader(f)
	left, entries := int64(maxSpool), 0
	for {
		h, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		name := path.Clean(h.Name)
		if h.Typeflag != tar.TypeReg || name != "index.json" && name != "oci-layout" && !blobName.MatchString(name) {
			continue
		}
		entries++
		left -= h.Size
		switch {
		case left < 0:
			return fmt.Errorf("it unpacks to more than %d GiB", maxSpool>>30)
		case entries > maxBlobs:
			return fmt.Errorf("it has more than %d files", maxBlobs)
		case !blobName.MatchString(name) && h.Size > maxIndex:
			return fmt.Errorf("%s has %d bytes, more than %d", name, h.Size, maxIndex)
		}
		out, err := os.OpenFile(filepath.Join(dir, filepath.FromSlash(name)), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, archive)
		if err = errors.Join(err, out.Close()); err != nil {
			return err
		}
	}
}

// fromLayout returns the image in an OCI layout, that for guests if there are
// several. What is read into memory of it, and how much there is of its layers, is bounded.
func fromLayout(dir string) (v1.Image, error) {
	if _, err := checkFile(filepath.Join(dir, "index.json"), maxIndex); err != nil {
		return nil, fmt.Errorf("not an OCI layout: %w", err)
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("not an OCI layout: %w", err)
	}
	blob := func(h v1.Hash, most int64) (int64, error) {
		return checkFile(filepath.Join(dir, "blobs", h.Algorithm, h.Hex), most)
	}
	image, err := pick(index, 0, blob)
	if err != nil {
		return nil, err
	}
	manifest, err := image.Manifest()
	if err != nil {
		return nil, err
	}
	if _, err := blob(manifest.Config.Digest, maxIndex); err != nil {
		return nil, err
	}
	left := int64(maxSpool)
	for _, l := range manifest.Layers {
		size, err := blob(l.Digest, left)
		if err != nil {
			return nil, err
		}
		left -= size
	}
	return image, nil
}

// checkFile returns the size of a file, and refuses what is no file or has more
// bytes than most.
func checkFile(path string, most int64) (int64, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return 0, err
	case !info.Mode().IsRegular():
		return 0, fmt.Errorf("%s is no file", path)
	case info.Size() > most:
		return 0, fmt.Errorf("%s has %d bytes, more than %d", path, info.Size(), most)
	}
	return info.Size(), nil
}
