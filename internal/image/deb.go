package image

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxUnpacked bounds what a kernel's package unpacks to, in bytes.
const maxUnpacked = 2 << 30

// unpackDeb puts the kernel and the modules of a Debian package into dir, and
// leaves out the rest. A package is an ar archive with a compressed tar archive in it.
func unpackDeb(ctx context.Context, r io.Reader, dir string) error {
	in := bufio.NewReaderSize(r, 256<<10)
	magic := make([]byte, 8)
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != "!<arch>\n" {
		return errors.New("not a Debian package")
	}
	for {
		name, size, err := arHeader(in)
		if errors.Is(err, io.EOF) {
			return errors.New("a Debian package without files (data.tar)")
		}
		if err != nil {
			return err
		}
		if !strings.HasPrefix(name, "data.tar") {
			if _, err := io.CopyN(io.Discard, in, size+size%2); err != nil { // members begin at even places
				return fmt.Errorf("read the package: %w", err)
			}
			continue
		}
		data, closeData, err := decompressor(io.LimitReader(in, size), path.Ext(name))
		if err != nil {
			return fmt.Errorf("open %s of the package: %w", name, err)
		}
		defer closeData()
		return unpackTar(ctx, data, dir)
	}
}

// arHeader reads the header of the next member of an ar archive.
func arHeader(r io.Reader) (name string, size int64, err error) {
	header := make([]byte, 60)
	if _, err := io.ReadFull(r, header); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("a Debian package that is cut off")
		}
		return "", 0, err
	}
	if string(header[58:]) != "`\n" {
		return "", 0, errors.New("a damaged Debian package")
	}
	name = strings.TrimSuffix(strings.TrimRight(string(header[:16]), " "), "/")
	size, err = strconv.ParseInt(strings.TrimRight(string(header[48:58]), " "), 10, 64)
	if err != nil || size < 0 {
		return "", 0, fmt.Errorf("a damaged Debian package: a member of %.10q bytes", header[48:58])
	}
	return name, size, nil
}

// decompressor opens a stream by the ending of its name.
func decompressor(r io.Reader, ending string) (io.Reader, func(), error) {
	nothing := func() {}
	switch ending {
	case ".tar":
		return r, nothing, nil
	case ".gz":
		z, err := gzip.NewReader(r)
		return z, nothing, err
	case ".xz":
		z, err := xz.ReaderConfig{DictCap: maxDictionary}.NewReader(r)
		return z, nothing, err
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxDictionary))
		if err != nil {
			return nil, nothing, err
		}
		return z, z.Close, nil
	}
	return nil, nothing, fmt.Errorf("it is compressed in a way that is not known (%s)", ending)
}

// unpackTar puts those files of a tar archive into dir that a kernel is made of.
func unpackTar(ctx context.Context, r io.Reader, dir string) error {
	archive := tar.NewReader(r)
	for left := int64(maxUnpacked); ; {
		h, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the package: %w", err)
		case ctx.Err() != nil:
			return ctx.Err()
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if h.Typeflag != tar.TypeReg || !ofKernel(name) {
			continue
		}
		if left -= h.Size; left < 0 {
			return fmt.Errorf("a package of more than %d bytes", int64(maxUnpacked))
		}
		if err := unpackFile(archive, filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
	}
}

// ofKernel reports whether a file of a package is needed. Names are short, and
// nothing in a path leads upwards.
func ofKernel(name string) bool {
	modules := strings.HasPrefix(name, "lib/modules/") || strings.HasPrefix(name, "usr/lib/modules/")
	switch {
	case strings.ContainsRune(name, 0) || len(name) > 512:
		return false
	case modules:
		return moduleName(name) != "" || path.Base(name) == "modules.builtin" || path.Base(name) == "vmlinuz"
	}
	return strings.HasPrefix(name, "boot/vmlinuz-")
}

func unpackFile(r io.Reader, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
