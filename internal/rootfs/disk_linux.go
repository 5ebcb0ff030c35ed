package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unpack makes the tree's files in a directory that is empty and this process's
// alone. Devices stay in the tree only: they would be those of this host.
// It takes root, for their owners.
func (t *tree) unpack(ctx context.Context, dir string) error {
	first := map[*node]string{}
	type made struct {
		path string
		node *node
	}
	dirs := []made{{dir, t.root}} // which get their modes and times when they are filled
	err := t.each(func(name string, n *node) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		if n.kind == tar.TypeDir {
			dirs = append(dirs, made{to, n})
			return os.Mkdir(to, 0o700)
		}
		if other, ok := first[n]; ok {
			return os.Link(other, to)
		}
		first[n] = to
		if err := t.create(n, to); err != nil {
			return err
		}
		if n.kind == tar.TypeChar || n.kind == tar.TypeBlock {
			delete(first, n)
			return nil
		}
		return n.dress(to)
	})
	slices.Reverse(dirs)
	for _, d := range dirs {
		if err == nil {
			err = d.node.dress(d.path)
		}
	}
	return err
}

// create makes what is not a directory, without anything but what it holds.
func (t *tree) create(n *node, to string) error {
	switch n.kind {
	case tar.TypeSymlink:
		return os.Symlink(n.link, to)
	case tar.TypeFifo:
		return unix.Mkfifo(to, 0o600)
	case tar.TypeReg:
	default:
		return nil
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	body, err := t.open(n)
	if err == nil {
		_, err = io.Copy(out, body)
	}
	return errors.Join(err, out.Close())
}

// dress gives what is at a path the owner, mode, extended attributes and time of
// the node, in this order: each may change those before it, or be undone by them.
func (n *node) dress(to string) error {
	if err := os.Lchown(to, n.uid, n.gid); err != nil {
		return fmt.Errorf("give it to %d:%d: %w", n.uid, n.gid, err)
	}
	if n.kind != tar.TypeSymlink {
		if err := unix.Chmod(to, uint32(n.mode)); err != nil {
			return &fs.PathError{Op: "chmod", Path: to, Err: err}
		}
	}
	for name, value := range n.xattrs {
		if name == aclAccess || name == aclDefault {
			value = seenACL(value)
		}
		if !isKept(name) {
			continue
		}
		if err := unix.Lsetxattr(to, name, []byte(value), 0); err != nil {
			return fmt.Errorf("set extended attribute %s of %s: %w (name a place that keeps them in TMPDIR)", name, to, err)
		}
	}
	at := unix.NsecToTimespec(n.modified.UnixNano())
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, to, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "set time of", Path: to, Err: err}
	}
	return nil
}

// isKept reports whether an extended attribute goes to a directory and back. Labels
// that hosts give to all files do not.
func isKept(name string) bool {
	return !strings.HasPrefix(name, "security.") || name == "security.capability"
}

// pack makes the tree what is in a directory that nobody else writes to, and its
// own devices where they still fit. Times from a given one on become 0.
func (t *tree) pack(ctx context.Context, dir string, began time.Time) error {
	devices := map[string]*node{}
	_ = t.each(func(name string, n *node) error { // returns nil, as the function does
		if n.kind == tar.TypeChar || n.kind == tar.TypeBlock {
			devices[name] = n
		}
		return nil
	})
	t.close()
	if err := t.spool.reset(); err != nil {
		return err
	}
	*t = *newTree(t.spool)
	type inode struct{ device, number uint64 }
	seen := map[inode]*node{}
	err := filepath.WalkDir(dir, func(from string, _ fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		var s unix.Stat_t
		if err := unix.Lstat(from, &s); err != nil {
			return &fs.PathError{Op: "stat", Path: from, Err: err}
		}
		if s.Mode&unix.S_IFMT == unix.S_IFSOCK {
			return nil // whoever listened is gone
		}
		name := strings.TrimPrefix(from, dir)
		id := inode{s.Dev, s.Ino}
		if n := seen[id]; n != nil && n.kind != tar.TypeDir {
			return t.put(name, n)
		}
		n, err := t.take(from, &s, began)
		if err != nil {
			return fmt.Errorf("%.200q: %w", name, err)
		}
		seen[id] = n
		return t.put(name, n)
	})
	if err != nil {
		return err
	}
	for name, n := range devices {
		if parent := t.find(path.Dir(name), false); parent != nil && parent.kind == tar.TypeDir && t.find(name, false) == nil {
			if err := t.put(name, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// kinds of files, as archives and as inodes have them.
var kinds = map[uint32]byte{
	unix.S_IFREG: tar.TypeReg, unix.S_IFDIR: tar.TypeDir, unix.S_IFLNK: tar.TypeSymlink,
	unix.S_IFIFO: tar.TypeFifo, unix.S_IFCHR: tar.TypeChar, unix.S_IFBLK: tar.TypeBlock,
}

// take returns a node of what is at a path, with what it holds in the spool.
func (t *tree) take(from string, s *unix.Stat_t, began time.Time) (*node, error) {
	n := &node{
		kind: kinds[s.Mode&unix.S_IFMT], mode: int64(s.Mode & 0o7777), uid: int(s.Uid), gid: int(s.Gid),
		modified: time.Unix(s.Mtim.Unix()).UTC(), major: int64(unix.Major(s.Rdev)), minor: int64(unix.Minor(s.Rdev)),
	}
	if !n.modified.Before(began) {
		n.modified = epoch
	}
	var err error
	switch n.kind {
	case tar.TypeSymlink:
		if n.link, err = os.Readlink(from); err != nil {
			return nil, err
		}
	case tar.TypeReg:
		f, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if err != nil {
			return nil, err
		}
		n.size = s.Size
		n.at, err = t.spool.add(f, n.size)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
	if err := n.check(); err != nil {
		return nil, err
	}
	return n, n.takeXattrsOf(from)
}

// takeXattrsOf notes the extended attributes of what is at a path.
func (n *node) takeXattrsOf(from string) error {
	buffer := make([]byte, 64<<10) // as much as the kernel returns
	size, err := unix.Llistxattr(from, buffer)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list extended attributes: %w", err)
	}
	names := strings.Split(strings.TrimRight(string(buffer[:size]), "\x00"), "\x00")
	sum := 0
	for _, name := range names {
		if name == "" || !isKept(name) {
			continue
		}
		size, err := unix.Lgetxattr(from, name, buffer)
		if err != nil {
			return fmt.Errorf("read extended attribute %s: %w", name, err)
		}
		if err := n.takeXattr(name, string(buffer[:size]), &sum); err != nil {
			return err
		}
	}
	return nil
}
