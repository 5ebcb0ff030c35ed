package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
)

// maxImage is the largest file system that is made, in bytes.
const maxImage = 1 << 40

// TooSmallError means that files do not fit into a file system of the size that
// was asked for.
type TooSmallError struct {
	Size int64 // asked for, in bytes
	Need int64 // the least that holds them, in bytes
}

func (e *TooSmallError) Error() string {
	return fmt.Sprintf("a file system of %d bytes is too small: its files need %d (--size=%s)", e.Size, e.Need, mebibytes(e.Need))
}

// mebibytes returns the least whole number of MiB that holds n bytes.
func mebibytes(n int64) string { return fmt.Sprintf("%dMiB", (n+1<<20-1)>>20) }

// writeExt4 makes out, which is empty, an ext4 file system of size bytes with the
// files of the tree. Equal trees and sizes make equal bytes. Blocks of zeros are holes.
// written is told how many bytes of the files' contents are done, now and then.
func (t *tree) writeExt4(ctx context.Context, out *os.File, size int64, written func(int64)) error {
	if size > maxImage {
		return fmt.Errorf("a file system of %d bytes is larger than %d", size, int64(maxImage))
	}
	if contents, all := t.estimate(); contents > size {
		return &TooSmallError{Size: size, Need: all} // before a byte of it is written
	}
	stream, feed := io.Pipe()
	fed := make(chan error, 1)
	go func() {
		err := t.writeTar(ctx, feed, written)
		_ = feed.CloseWithError(err) // returns nil
		fed <- err
	}()
	limit := max(2*size, 16<<30) // room in the table of block groups to grow into
	err := tar2ext4.ConvertTarToExt4(stream, &holes{file: out}, tar2ext4.MaximumDiskSize(limit))
	_ = stream.CloseWithError(errors.Join(errors.New("the image was given up"), err)) // returns nil
	if feedErr := <-fed; feedErr != nil && err == nil {
		err = feedErr
	}
	if err != nil {
		return fmt.Errorf("write ext4: %w", err)
	}
	return layOut(out, size, limit)
}

// estimate returns how many bytes the tree's files hold, in whole blocks, and how
// many a file system for all of the tree has, or somewhat less.
func (t *tree) estimate() (contents, all int64) {
	const perName = inodeSize + 64
	seen := map[*node]bool{}
	_ = t.each(func(_ string, n *node) error { // returns nil, as the function does
		if seen[n] {
			return nil
		}
		seen[n] = true
		all += perName
		switch {
		case n.kind == tar.TypeReg:
			contents += ceil(n.size, blockSize) * blockSize
		case n.kind == tar.TypeDir, len(n.link) > 59:
			all += blockSize
		}
		if len(n.xattrs) > 0 {
			all += blockSize
		}
		return nil
	})
	all += contents
	return contents, all + ceil(all, blocksPerGroup*blockSize)*2*blockSize + 1<<20
}

// writeTar writes the tree as one tar stream: directories before what is in
// them, names in order, and a file's other names as links to its first.
func (t *tree) writeTar(ctx context.Context, w io.Writer, written func(int64)) error {
	out := tar.NewWriter(w)
	first := map[*node]string{}
	done, buffer := int64(0), make([]byte, 256<<10)
	write := func(name string, n *node) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		h := n.header(name)
		if n.kind != tar.TypeDir {
			if target, ok := first[n]; ok {
				h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, target, 0, nil
				return out.WriteHeader(h)
			}
			first[n] = name
		}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if n.kind != tar.TypeReg || n.size == 0 {
			return nil
		}
		body, err := t.open(n)
		if err != nil {
			return err
		}
		if _, err := io.CopyBuffer(out, body, buffer); err != nil {
			return err
		}
		done += n.size
		written(done)
		return nil
	}
	if err := write("./", t.root); err != nil {
		return err
	}
	if err := t.each(write); err != nil {
		return err
	}
	return out.Close()
}

func (n *node) header(name string) *tar.Header {
	h := &tar.Header{
		Typeflag: n.kind, Name: name, Mode: n.mode, Uid: n.uid, Gid: n.gid, Size: n.size, Linkname: n.link,
		ModTime: n.modified, AccessTime: n.modified, ChangeTime: n.modified,
		Devmajor: n.major, Devminor: n.minor, Format: tar.FormatPAX,
	}
	for key, value := range n.xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrKey+key] = value
	}
	return h
}

// holes is a file whose blocks of zeros are left out where nothing was written
// before. It has no ReadFrom, by which bytes would go past Write.
type holes struct {
	file    *os.File
	at, end int64 // where the next byte goes, and behind the last one that was written
}

// Read is that of the file.
func (h *holes) Read(p []byte) (int, error) {
	n, err := h.file.Read(p)
	h.at += int64(n)
	return n, err
}

// Seek is that of the file.
func (h *holes) Seek(offset int64, whence int) (int64, error) {
	at, err := h.file.Seek(offset, whence)
	h.at = at
	return at, err
}

// Write writes what is not zero.
func (h *holes) Write(p []byte) (n int, err error) {
	for n < len(p) {
		run := p[n : n+chunk(h.at, len(p)-n)]
		zeros := h.at >= h.end && allZero(run)
		for next := n + len(run); next < len(p); { // take what is of one kind at once
			more := p[next : next+chunk(h.at+int64(len(run)), len(p)-next)]
			if (h.at+int64(len(run)) >= h.end && allZero(more)) != zeros {
				break
			}
			run = p[n : next+len(more)]
			next += len(more)
		}
		if zeros {
			_, err = h.file.Seek(int64(len(run)), io.SeekCurrent)
		} else {
			_, err = h.file.Write(run)
		}
		if err != nil {
			return n, err
		}
		n += len(run)
		h.at += int64(len(run))
		h.end = max(h.end, h.at)
	}
	return n, nil
}

// chunk returns how many of n bytes at a place are in one block.
func chunk(at int64, n int) int { return min(n, int(blockSize-at%blockSize)) }

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
