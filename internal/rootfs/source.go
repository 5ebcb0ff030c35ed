package rootfs

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Scratch is the name of the base that has nothing in it.
const Scratch = "scratch"

// addBase puts the base that is named into the tree: an image of a registry, or
// what is at a path, which is an archive as docker save writes it, an OCI archive,
// an OCI layout, or a tar archive of a root directory. temp is for its files. It returns
// the digest of an image, "" where there is none.
func (t *tree) addBase(ctx context.Context, o Options, temp string) (digest string, err error) {
	if o.Base == "" || o.Base == Scratch {
		return "", nil
	}
	info, err := os.Stat(o.Base)
	switch {
	case err == nil && info.IsDir():
		image, err := fromLayout(o.Base)
		if err != nil {
			return "", fmt.Errorf("%s: %w", o.Base, err)
		}
		return t.addImage(ctx, image, true, o.Progress)
	case err == nil:
		digest, err := t.addArchive(ctx, o, temp)
		if err != nil {
			return "", fmt.Errorf("%s: %w", o.Base, err)
		}
		return digest, nil
	case strings.HasPrefix(o.Base, "/") || strings.HasPrefix(o.Base, "."):
		return "", fmt.Errorf("base image: %w", err)
	}
	o.Progress("pull "+o.Base, 0, 0)
	image, err := pull(ctx, o.Base)
	if err != nil {
		return "", err
	}
	return t.addImage(ctx, image, true, o.Progress)
}

// Kinds of tar archives.
const (
	plainTar = iota
	dockerTar
	ociTar
)

// addArchive puts a tar archive into the tree, whatever is in it.
func (t *tree) addArchive(ctx context.Context, o Options, temp string) (digest string, err error) {
	o.Progress("read "+o.Base, 0, 0)
	file, err := uncompressed(ctx, o.Base, temp)
	if err != nil {
		return "", err
	}
	kind, err := kindOf(ctx, file)
	if err != nil {
		return "", err
	}
	var image v1.Image
	switch kind {
	case dockerTar:
		if image, err = tarball.ImageFromPath(file, nil); err != nil {
			return "", err
		}
		return t.addImage(ctx, image, false, o.Progress)
	case ociTar:
		dir := filepath.Join(temp, "oci")
		if err := unpackLayout(ctx, file, dir); err != nil {
			return "", err
		}
		if image, err = fromLayout(dir); err != nil {
			return "", err
		}
		return t.addImage(ctx, image, true, o.Progress)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	t.sources = append(t.sources, f)
	return "", t.addLayer(ctx, f)
}

// kindOf finds out what a tar archive is from the names in it.
func kindOf(ctx context.Context, file string) (kind int, err error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // was only read
	archive := tar.NewReader(f)
	for {
		h, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF):
			return kind, nil
		case err != nil:
			return 0, fmt.Errorf("neither an image nor a tar archive: %w", err)
		case ctx.Err() != nil:
			return 0, ctx.Err()
		}
		switch path.Clean(h.Name) {
		case "manifest.json":
			if h.Size > maxIndex {
				return 0, fmt.Errorf("manifest.json has %d bytes, more than %d", h.Size, maxIndex)
			}
			return dockerTar, nil
		case "oci-layout":
			kind = ociTar
		}
	}
}

// uncompressed returns the path of a file with what is in a file that may be
// compressed, which is the file itself if it is not.
func uncompressed(ctx context.Context, file, temp string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // was only read
	in := bufio.NewReaderSize(&reading{ctx: ctx, r: f, tell: func(int64) {}}, 256<<10)
	r, closeReader, err := decompress(in)
	if err != nil {
		return "", err
	}
	defer closeReader()
	if r == io.Reader(in) {
		return file, nil
	}
	out, err := os.CreateTemp(temp, "archive-*")
	if err != nil {
		return "", err
	}
	n, err := io.Copy(out, io.LimitReader(r, maxSpool+1))
	if err == nil && n > maxSpool {
		err = fmt.Errorf("it unpacks to more than %d GiB", maxSpool>>30)
	}
	return out.Name(), errors.Join(err, out.Close())
}

// maxWindow bounds what a decompressor may look back on, in bytes.
const maxWindow = 128 << 20

// decompress returns what a stream is when unpacked; one that is not compressed is
// returned as it is.
func decompress(in *bufio.Reader) (io.Reader, func(), error) {
	nothing := func() {}
	magic, err := in.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nothing, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		r, err := gzip.NewReader(in)
		return r, nothing, err
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		r, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nothing, err
		}
		return r, r.Close, nil
	case bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")):
		r, err := xz.ReaderConfig{DictCap: maxWindow}.NewReader(in)
		return r, nothing, err
	case bytes.HasPrefix(magic, []byte("BZh")):
		return bzip2.NewReader(in), nothing, nil
	}
	return in, nothing, nil
}
