package preflight

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// unpack writes to w what a file called name has inside: the member of an archive
// (.tgz, .tar.gz), what was compressed (.gz), or the file itself; at most limit
// bytes. Names in archives are compared and never used as paths.
func unpack(w io.Writer, r io.Reader, name, member string, limit int64) error {
	switch {
	case isArchive(name):
		return unpackMember(w, r, member, limit)
	case strings.HasSuffix(name, ".gz"):
		z, err := gzip.NewReader(r)
		if err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
		if err := copyAll(w, z, limit); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
		return nil
	}
	return copyAll(w, r, limit)
}

// maxMembers is how many entries of an archive are looked at, and maxArchive how
// many bytes of it.
const (
	maxMembers = 10_000
	maxArchive = 16 << 30
)

func unpackMember(w io.Writer, r io.Reader, member string, limit int64) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return fmt.Errorf("unpack archive: %w", err)
	}
	archive := tar.NewReader(io.LimitReader(z, maxArchive))
	for range maxMembers {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the archive has no %s", member)
		}
		if err != nil {
			return fmt.Errorf("unpack archive: %w", err)
		}
		if path.Clean(h.Name) != path.Clean(member) {
			continue
		}
		if h.Typeflag != tar.TypeReg {
			return fmt.Errorf("%s in the archive is no file", member)
		}
		return copyAll(w, archive, limit)
	}
	return fmt.Errorf("the archive has no %s among its first %d entries", member, maxMembers)
}

// copyAll copies at most limit bytes; more are an error.
func copyAll(w io.Writer, r io.Reader, limit int64) error {
	n, err := io.Copy(w, io.LimitReader(r, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("%w: %d bytes are the most", errTooBig, limit)
	}
	if err == nil && n == 0 {
		err = errors.New("it is empty")
	}
	return err
}
