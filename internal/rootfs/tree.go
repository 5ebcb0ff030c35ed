package rootfs

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// Bounds of what a tree takes from archives, which come from anywhere.
const (
	maxEntries = 2_000_000
	maxName    = 255  // bytes in a name, as in every file system of Linux
	maxPath    = 4096 // bytes in a path
	maxDepth   = 1024 // directories in directories
	maxHops    = 40   // symbolic links on the way to a file
	maxXattrs  = 3500 // bytes in the extended attributes of a file, which get one block
)

// node is what a name stands for. Hard links are several names for one node.
type node struct {
	kind     byte // tar.TypeReg, TypeDir, TypeSymlink, TypeChar, TypeBlock or TypeFifo
	mode     int64
	uid, gid int
	modified time.Time
	link     string // of a symbolic link
	major    int64  // of a device
	minor    int64
	xattrs   map[string]string
	in       *os.File         // of a file: what its bytes are in, nil for the spool
	at, size int64            // of a file: where its bytes are, and how many
	children map[string]*node // of a directory
	layer    int              // the last layer that had it
}

// tree is a file system in memory, but for what its files hold: that is in a
// spool, or in the archive that it came in. It is not safe for concurrent use.
type tree struct {
	root    *node
	spool   *spool
	sources []*os.File
	entries int
	layer   int // being added
}

func newTree(s *spool) *tree {
	return &tree{root: &node{kind: tar.TypeDir, mode: 0o755, children: map[string]*node{}, modified: epoch}, spool: s}
}

// open returns what a file of the tree holds.
func (t *tree) open(n *node) (io.Reader, error) {
	if n.in != nil {
		return io.NewSectionReader(n.in, n.at, n.size), nil
	}
	return t.spool.open(n.at, n.size)
}

// close closes the archives that the tree reads from.
func (t *tree) close() {
	for _, f := range t.sources {
		_ = f.Close() // was only read
	}
}

// epoch is the time of what no archive gives a time, so that equal inputs make
// equal images.
var epoch = time.Unix(0, 0).UTC()

// parts splits the path of an entry, which cannot lead out of the tree.
func parts(name string) ([]string, error) {
	if strings.ContainsRune(name, 0) || len(name) > maxPath {
		return nil, fmt.Errorf("%.60q cannot be a path", name)
	}
	clean := path.Clean("/" + name)
	if clean == "/" {
		return nil, nil
	}
	p := strings.Split(clean[1:], "/")
	for _, part := range p {
		if len(part) > maxName {
			return nil, fmt.Errorf("%.60q is longer than %d bytes", part, maxName)
		}
	}
	return p, nil
}

// errLoop means that symbolic links go round in circles.
var errLoop = errors.New("too many symbolic links")

// walk returns the names of the directory that a path leads to, with symbolic
// links followed inside the tree. Directories that are not there yet are made if
// make is set, else it returns false.
func (t *tree) walk(names []string, create bool) (dir *node, ok bool, err error) {
	var at []*node // from the root down
	dir = t.root
	todo := slices.Clone(names)
	for hops := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(at) > 0 {
				dir, at = at[len(at)-1], at[:len(at)-1]
			}
			continue
		}
		next := dir.children[name]
		switch {
		case next != nil && next.kind == tar.TypeSymlink:
			if hops++; hops > maxHops || len(todo) > maxPath {
				return nil, false, errLoop
			}
			if strings.HasPrefix(next.link, "/") {
				dir, at = t.root, nil
			}
			todo = append(strings.Split(next.link, "/"), todo...)
			continue
		case next != nil && next.kind == tar.TypeDir:
		case !create:
			return nil, false, nil
		default: // nothing, or what gives way to a directory
			if next, err = t.add(dir, name, &node{kind: tar.TypeDir, mode: 0o755, modified: epoch}); err != nil {
				return nil, false, err
			}
		}
		if at = append(at, dir); len(at) > maxDepth {
			return nil, false, fmt.Errorf("more than %d directories deep", maxDepth)
		}
		dir = next
	}
	return dir, true, nil
}

// add gives a node a name, in place of what had that name. A directory over a
// directory keeps what is in it.
func (t *tree) add(dir *node, name string, n *node) (*node, error) {
	old := dir.children[name]
	if t.entries++; t.entries > maxEntries {
		return nil, fmt.Errorf("more than %d files", maxEntries)
	}
	if n.kind == tar.TypeDir && n.children == nil {
		n.children = map[string]*node{}
		if old != nil && old.kind == tar.TypeDir {
			n.children = old.children
		}
	}
	n.layer = t.layer
	dir.children[name] = n
	return n, nil
}

// put gives the node at a path a name, and makes the directories on the way.
func (t *tree) put(name string, n *node) error {
	names, err := parts(name)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		if n.kind != tar.TypeDir {
			return fmt.Errorf("%q is the root, which is a directory", name)
		}
		n.children, n.layer = t.root.children, t.layer
		t.root = n
		return nil
	}
	dir, _, err := t.walk(names[:len(names)-1], true)
	if err != nil {
		return fmt.Errorf("%.200q: %w", name, err)
	}
	_, err = t.add(dir, names[len(names)-1], n)
	return err
}

// find returns the node at a path, nil if there is none. Symbolic links on the
// way are followed, and the last one only if it is said so.
func (t *tree) find(name string, follow bool) *node {
	names, err := parts(name)
	if err != nil || len(names) == 0 {
		return t.root
	}
	if follow {
		return t.follow(names)
	}
	dir, ok, err := t.walk(names[:len(names)-1], false)
	if err != nil || !ok {
		return nil
	}
	return dir.children[names[len(names)-1]]
}

// follow returns what is at the end of a path, behind symbolic links.
func (t *tree) follow(names []string) *node {
	for range maxHops {
		last := len(names) - 1
		dir, ok, err := t.walk(names[:last], false)
		if err != nil || !ok {
			return nil
		}
		n := dir.children[names[last]]
		if n == nil || n.kind != tar.TypeSymlink {
			return n
		}
		target := n.link
		if !strings.HasPrefix(target, "/") {
			target = path.Join(append(append([]string{"/"}, names[:last]...), target)...)
		}
		if names, err = parts(target); err != nil || len(names) == 0 {
			return t.root
		}
	}
	return nil
}

// remove takes away what lower layers have at a path; what the layer that is
// being added has stays.
func (t *tree) remove(name string) error {
	names, err := parts(name)
	if err != nil || len(names) == 0 {
		return err
	}
	dir, ok, err := t.walk(names[:len(names)-1], false)
	if err != nil || !ok {
		return err
	}
	last := names[len(names)-1]
	if n := dir.children[last]; n != nil && t.prune(n) {
		delete(dir.children, last)
	}
	return nil
}

// prune removes what lower layers have below n, and reports whether nothing of
// this layer is left, n included.
func (t *tree) prune(n *node) bool {
	for name, child := range n.children {
		if t.prune(child) {
			delete(n.children, name)
		}
	}
	return n.layer < t.layer && len(n.children) == 0
}

// clear empties a directory of what lower layers have in it.
func (t *tree) clear(name string) error {
	names, err := parts(name)
	if err != nil {
		return err
	}
	dir, ok, err := t.walk(names, false)
	if err != nil || !ok {
		return err
	}
	for name, child := range dir.children {
		if t.prune(child) {
			delete(dir.children, name)
		}
	}
	return nil
}

// each visits every name in the tree, directories before what is in them, in an
// order that depends on the names alone.
func (t *tree) each(visit func(name string, n *node) error) error {
	return eachBelow("", t.root, visit)
}

func eachBelow(at string, dir *node, visit func(string, *node) error) error {
	names := make([]string, 0, len(dir.children))
	for name := range dir.children {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		child := dir.children[name]
		full := path.Join(at, name)
		if err := visit(full, child); err != nil {
			return err
		}
		if child.kind == tar.TypeDir {
			if err := eachBelow(full, child, visit); err != nil {
				return err
			}
		}
	}
	return nil
}
