package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// Whiteouts of the OCI image specification, "Representing Changes": a file with
// the prefix removes what lower layers have under the rest of its name, and one
// with the whole name all that they have in its directory.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	xattrKey = "SCHILY.xattr." // begins the PAX records that are extended attributes
)

// addLayer puts what a tar stream has over the tree. Whiteouts never hide what
// the same layer has, wherever in it they come.
func (t *tree) addLayer(ctx context.Context, r io.Reader) error {
	t.layer++
	in, _ := r.(*os.File) // whose bytes stay where they are
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := t.addEntry(h, archive, in); err != nil {
			return fmt.Errorf("%.200q: %w", h.Name, err)
		}
	}
}

// addEntry adds an entry of an archive, which is in a file unless in is nil.
func (t *tree) addEntry(h *tar.Header, body io.Reader, in *os.File) error {
	dir, base := path.Split(path.Clean("/" + h.Name))
	switch {
	case base == opaque:
		return t.clear(dir)
	case strings.HasPrefix(base, whiteout+whiteout): // of other tools, for themselves
		return nil
	case strings.HasPrefix(base, whiteout):
		return t.remove(dir + strings.TrimPrefix(base, whiteout))
	case h.Typeflag == tar.TypeLink:
		return t.addLink(h)
	}
	n := &node{
		kind: h.Typeflag, mode: h.Mode & 0o7777, uid: h.Uid, gid: h.Gid, modified: h.ModTime,
		link: h.Linkname, major: h.Devmajor, minor: h.Devminor,
	}
	switch n.kind {
	case tar.TypeReg, tar.TypeGNUSparse:
		n.kind, n.size = tar.TypeReg, h.Size
	case tar.TypeDir, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	case tar.TypeXGlobalHeader:
		return nil
	default:
		return fmt.Errorf("entries of type %q are not understood", string(h.Typeflag))
	}
	if err := n.check(); err != nil {
		return err
	}
	if err := n.takeXattrs(h); err != nil {
		return err
	}
	if err := t.keep(h, n, body, in); err != nil {
		return err
	}
	return t.put(h.Name, n)
}

// keep notes where the bytes of a file are in the archive, if that can be read
// again, and else puts them into the spool.
func (t *tree) keep(h *tar.Header, n *node, body io.Reader, in *os.File) (err error) {
	if n.size == 0 {
		return nil
	}
	if in == nil || isSparse(h) {
		n.at, err = t.spool.add(body, n.size)
		return err
	}
	if n.at, err = in.Seek(0, io.SeekCurrent); err != nil {
		return err
	}
	n.in = in // the archive is cut off if it is not there, which the next header shows
	return nil
}

// isSparse reports whether an archive leaves out the zeros of a file.
func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// check refuses what no inode can hold.
func (n *node) check() error {
	const most = 1<<32 - 1
	switch {
	case n.uid < 0 || n.gid < 0 || n.uid > most || n.gid > most:
		return fmt.Errorf("owner %d:%d is out of range", n.uid, n.gid)
	case n.major < 0 || n.minor < 0 || n.major > 0xfff || n.minor > 0xfffff:
		return fmt.Errorf("device %d:%d is out of range", n.major, n.minor)
	case n.kind == tar.TypeSymlink && (n.link == "" || len(n.link) >= maxPath):
		return fmt.Errorf("symbolic link of %d bytes", len(n.link))
	}
	return nil
}

func (n *node) takeXattrs(h *tar.Header) error {
	sum := 0
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrKey)
		if !ok {
			continue
		}
		if len(name) > maxName {
			return fmt.Errorf("extended attribute with a name of %d bytes", len(name))
		}
		if sum += len(name) + len(value) + 24; sum > maxXattrs {
			return fmt.Errorf("extended attributes of more than %d bytes", maxXattrs)
		}
		if n.xattrs == nil {
			n.xattrs = map[string]string{}
		}
		n.xattrs[name] = value
	}
	return nil
}

// addLink gives a file that is there one more name.
func (t *tree) addLink(h *tar.Header) error {
	target := t.find(h.Linkname, false)
	switch {
	case target == nil:
		return fmt.Errorf("hard link to %.200q, which is not there", h.Linkname)
	case target.kind == tar.TypeDir:
		return fmt.Errorf("hard link to the directory %.200q", h.Linkname)
	}
	return t.put(h.Name, target)
}
