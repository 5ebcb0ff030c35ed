package rootfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxSpool bounds what the layers of an image may unpack to, in bytes.
const maxSpool = 64 << 30

// spool is a temporary file with what all files of a tree hold, one after the
// other, so that memory holds their names only.
type spool struct {
	f    *os.File
	w    *bufio.Writer
	size int64
}

// newSpool makes a spool in dir, or where temporary files go if dir is "".
func newSpool(dir string) (*spool, error) {
	f, err := os.CreateTemp(dir, "nex-rootfs-*")
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	return &spool{f: f, w: bufio.NewWriterSize(f, 256<<10)}, nil
}

// add appends size bytes and returns where they begin.
func (s *spool) add(r io.Reader, size int64) (at int64, err error) {
	if size > maxSpool-s.size {
		return 0, fmt.Errorf("files of more than %d GiB", maxSpool>>30)
	}
	at = s.size
	n, err := io.CopyN(s.w, r, size)
	s.size += n
	return at, err
}

// open returns a reader of what was added at a place.
func (s *spool) open(at, size int64) (io.Reader, error) {
	if err := s.w.Flush(); err != nil {
		return nil, err
	}
	return io.NewSectionReader(s.f, at, size), nil
}

// reset empties the spool.
func (s *spool) reset() error {
	s.w.Reset(s.f)
	s.size = 0
	_, err := s.f.Seek(0, io.SeekStart)
	return errors.Join(err, s.f.Truncate(0))
}

func (s *spool) Close() error {
	return errors.Join(s.f.Close(), os.Remove(s.f.Name()))
}
