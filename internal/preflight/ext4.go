package preflight

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// agentPath is where the agent is in the root file system of a microVM.
const agentPath = "usr/local/bin/agent"

// agentInside returns the size of the agent in an ext4 file system. What the
// file says is bounded before it is believed.
func agentInside(r io.ReaderAt) (int64, error) {
	fs, err := openExt4(r)
	if err != nil {
		return 0, err
	}
	node, err := fs.inode(2) // the root directory
	if err != nil {
		return 0, err
	}
	for name := range strings.SplitSeq(agentPath, "/") {
		number, err := fs.lookup(node, name)
		if err != nil {
			return 0, err
		}
		if number == 0 {
			return 0, errors.New("there is no /" + agentPath + " in it")
		}
		if node, err = fs.inode(number); err != nil {
			return 0, err
		}
	}
	if node.mode&0xf000 != 0x8000 || node.mode&0o111 == 0 || node.size == 0 {
		return 0, errors.New("its /" + agentPath + " is no program")
	}
	return node.size, nil
}

// ext4 reads a file system, as far as it takes to find a file: of the formats of
// ext4 those with extents.
type ext4 struct {
	r                                io.ReaderAt
	block, perGroup, inodeSize, desc int64
	inodes, groupsAt                 int64
	reads                            int // that are still made
}

// inode is a file or directory.
type inode struct {
	mode   uint16
	flags  uint32
	size   int64
	blocks [60]byte
}

// Bounds of what is read.
const (
	maxDirectory = 16 << 20 // bytes
	maxDepth     = 5        // of trees of extents, as ext4 has it
	maxReads     = 20_000   // of inodes and blocks
	useExtents   = 0x80000
	inlineData   = 0x10000000
)

var errNotExt4 = errors.New("it is no ext4 file system")

func openExt4(r io.ReaderAt) (*ext4, error) {
	super := make([]byte, 1024)
	if _, err := r.ReadAt(super, 1024); err != nil {
		return nil, errNotExt4
	}
	le := binary.LittleEndian
	if le.Uint16(super[0x38:]) != 0xef53 {
		return nil, errNotExt4
	}
	shift := le.Uint32(super[0x18:])
	if shift > 6 {
		return nil, errNotExt4
	}
	f := &ext4{
		r: r, block: 1024 << shift, perGroup: int64(le.Uint32(super[0x28:])), inodes: int64(le.Uint32(super)),
		inodeSize: int64(le.Uint16(super[0x58:])), desc: 32, reads: maxReads,
	}
	if le.Uint32(super[0x60:])&0x80 != 0 { // 64bit
		f.desc = int64(le.Uint16(super[0xfe:]))
	}
	first := int64(le.Uint32(super[0x14:]))
	f.groupsAt = (first + 1) * f.block
	if f.perGroup == 0 || f.inodeSize < 128 || f.inodeSize > f.block || f.desc < 32 || f.desc > 1024 || first > 1 {
		return nil, errNotExt4
	}
	return f, nil
}

// inode reads the inode of a number.
func (f *ext4) inode(number uint32) (inode, error) {
	n := int64(number) - 1
	if n < 0 || n >= f.inodes {
		return inode{}, fmt.Errorf("it is damaged: there is no inode %d", number)
	}
	le := binary.LittleEndian
	desc := make([]byte, f.desc)
	if _, err := f.r.ReadAt(desc, f.groupsAt+n/f.perGroup*f.desc); err != nil {
		return inode{}, fmt.Errorf("it is damaged, or cut off: %w", err)
	}
	table := int64(le.Uint32(desc[8:]))
	if f.desc >= 64 {
		table |= int64(le.Uint32(desc[0x28:])) << 32
	}
	raw := make([]byte, 128)
	if err := f.at(raw, table, n%f.perGroup*f.inodeSize); err != nil {
		return inode{}, err
	}
	i := inode{mode: le.Uint16(raw), flags: le.Uint32(raw[0x20:]), size: int64(le.Uint32(raw[4:])) | int64(le.Uint32(raw[0x6c:]))<<32}
	copy(i.blocks[:], raw[0x28:])
	return i, nil
}

// at reads from a block on.
func (f *ext4) at(p []byte, block, offset int64) error {
	if block <= 0 || block > 1<<47/f.block {
		return errors.New("it is damaged: a block outside of it")
	}
	if f.reads--; f.reads < 0 {
		return errors.New("it is damaged: its directories have no end")
	}
	if _, err := f.r.ReadAt(p, block*f.block+offset); err != nil {
		return fmt.Errorf("it is damaged, or cut off: %w", err)
	}
	return nil
}

// lookup returns the inode number of a name in a directory, 0 if it is not there.
func (f *ext4) lookup(dir inode, name string) (uint32, error) {
	switch {
	case dir.mode&0xf000 == 0xa000:
		return 0, errors.New("on the way to /" + agentPath + " is a symbolic link")
	case dir.mode&0xf000 != 0x4000:
		return 0, nil
	case dir.flags&inlineData != 0 || dir.flags&useExtents == 0:
		return 0, errors.New("it has directories of a kind that is not read here")
	case dir.size < 0 || dir.size > maxDirectory:
		return 0, errors.New("it is damaged: a directory of impossible size")
	}
	left := dir.size / f.block
	var number uint32
	err := f.extents(dir.blocks[:], maxDepth, func(block, count int64) (more bool, err error) {
		data := make([]byte, f.block)
		for ; count > 0 && left > 0; count, block, left = count-1, block+1, left-1 {
			if err := f.at(data, block, 0); err != nil {
				return false, err
			}
			if number = entry(data, name); number != 0 {
				return false, nil
			}
		}
		return left > 0, nil
	})
	return number, err
}

// entry returns the inode number of a name in a block of a directory, 0 if it
// is not there.
func entry(data []byte, name string) uint32 {
	le := binary.LittleEndian
	for len(data) >= 8 {
		length, used := int(le.Uint16(data[4:])), int(data[6])
		if length == 0 && len(data) == 1<<16 {
			length = len(data)
		}
		if length < 8 || length > len(data) || 8+used > length {
			return 0
		}
		if string(data[8:8+used]) == name {
			return le.Uint32(data)
		}
		data = data[length:]
	}
	return 0
}

// extents visits the runs of blocks below a node of a tree of extents, until
// visit wants no more.
func (f *ext4) extents(node []byte, depth int, visit func(block, count int64) (more bool, err error)) error {
	_, err := f.walk(node, depth, visit)
	return err
}

func (f *ext4) walk(node []byte, depth int, visit func(block, count int64) (bool, error)) (bool, error) {
	le := binary.LittleEndian
	entries, level := int(le.Uint16(node[2:])), int(le.Uint16(node[6:]))
	if le.Uint16(node) != 0xf30a || level > depth || 12+12*entries > len(node) {
		return false, errors.New("it is damaged: no tree of extents")
	}
	for i := range entries {
		e := node[12+12*i:]
		if level == 0 {
			start := int64(le.Uint16(e[6:]))<<32 | int64(le.Uint32(e[8:]))
			if more, err := visit(start, int64(le.Uint16(e[4:]))); err != nil || !more {
				return false, err
			}
			continue
		}
		below := make([]byte, f.block)
		if err := f.at(below, int64(le.Uint16(e[8:]))<<32|int64(le.Uint32(e[4:])), 0); err != nil {
			return false, err
		}
		if more, err := f.walk(below, level-1, visit); err != nil || !more {
			return false, err
		}
	}
	return true, nil
}
