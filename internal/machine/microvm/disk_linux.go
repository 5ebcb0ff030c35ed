package microvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nex/internal/rootfs"
)

// template returns an empty ext4 of the size that machines get, made when it is
// first asked for. It is sparse: an empty GiB takes less than one MiB.
func (c *Config) template(ctx context.Context) (string, error) {
	path := filepath.Join(c.Templates, fmt.Sprintf("empty-%dMiB.ext4", c.DiskMiB))
	if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	if err := os.MkdirAll(c.Templates, 0o700); err != nil {
		return "", err
	}
	// Under another name at first: two machines may be the first.
	dir, err := os.MkdirTemp(c.Templates, "new-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	fresh := filepath.Join(dir, filepath.Base(path))
	if err := rootfs.Empty(ctx, fresh, int64(c.DiskMiB)<<20); err != nil {
		return "", err
	}
	return path, os.Rename(fresh, path)
}

// makeDisk makes a machine's own disk.
func (c *Config) makeDisk(ctx context.Context, path string) error {
	from, err := c.template(ctx)
	if err != nil {
		return err
	}
	return copySparse(path, from)
}

// copySparse copies a file to one that must not be there yet, and its holes as
// holes: by the file system itself where that can share the blocks.
func copySparse(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			_ = os.Remove(to) // the first error is the one to report
		}
	}()
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return nil
	}
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	return copyData(out, in)
}

// copyData copies what is no hole.
func copyData(out, in *os.File) error {
	for end := int64(0); ; {
		start, err := unix.Seek(int(in.Fd()), end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err != nil {
			return err
		}
		if end, err = unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE); err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, start), io.NewSectionReader(in, start, end-start)); err != nil {
			return err
		}
	}
}
