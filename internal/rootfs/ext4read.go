package rootfs

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// Facts of ext4 that reading needs: see layout.go.
const (
	rootInode       = 2
	extentsFlag     = 0x80000
	inlineDataFlag  = 0x10000000
	incompat64Bit   = 0x80
	incompatEncrypt = 0x10000
	extentMagic     = 0xf30a
	maxExtentDepth  = 5
	maxDirectory    = 64 << 20 // bytes of a directory that is searched
	typeMask        = 0xf000
	typeDirectory   = 0x4000
	typeFile        = 0x8000
	typeSymlink     = 0xa000
)

// reader finds files in an ext4 file system, which may have been made by anybody.
// It is not safe for concurrent use.
type reader struct {
	r              io.ReaderAt
	block          int64 // bytes in one
	blocks, free   int64
	inodes         int64
	freeInodes     int64
	inodeSize      int64
	inodesPerGroup int64
	descriptor     int64 // bytes in one
	descriptors    int64 // where they begin
	uuid           [16]byte
}

// errNoFile means that a file system has no file at a path.
var errNoFile = errors.New("no such file in the file system")

// openExt4 reads the superblock of a file system.
func openExt4(r io.ReaderAt) (*reader, error) {
	super := make([]byte, superblockSize)
	if _, err := r.ReadAt(super, superblockAt); err != nil || little.Uint16(super[sbMagic:]) != ext4Magic {
		return nil, errNoExt4
	}
	long := func(at int) int64 { return int64(little.Uint32(super[at:])) }
	log := long(sbLogBlockSize)
	if log > 6 {
		return nil, fmt.Errorf("%w: blocks of 2^%d KiB", errNoExt4, log)
	}
	f := &reader{
		r: r, block: 1024 << log, blocks: long(sbBlocks), free: long(sbFreeBlocks), inodes: long(sbInodes),
		freeInodes: long(sbFreeInodes), inodesPerGroup: long(sbInodesPerGroup), inodeSize: 128, descriptor: descriptorSize,
		uuid: [16]byte(super[sbUUID:]),
	}
	if long(0x4c) > 0 { // revision
		f.inodeSize = int64(little.Uint16(super[sbInodeSize:]))
	}
	incompat := little.Uint32(super[sbIncompat:])
	if incompat&incompat64Bit != 0 {
		f.blocks |= long(0x150) << 32
		f.free |= long(0x158) << 32
		f.descriptor = int64(little.Uint16(super[sbDescriptorSize:]))
	}
	f.descriptors = f.block * (long(0x14) + 1) // behind the superblock's block
	switch {
	case incompat&incompatEncrypt != 0:
		return nil, errors.New("an ext4 file system with encrypted files, which are not read")
	case f.inodesPerGroup == 0 || f.inodeSize < 128 || f.inodeSize > f.block || f.descriptor < descriptorSize || f.descriptor > 1024,
		f.blocks <= 0 || f.blocks > math.MaxInt64/f.block:
		return nil, fmt.Errorf("%w: its superblock makes no sense", errNoExt4)
	}
	return f, nil
}

// inode is an inode as it is on the disk.
type inode []byte

func (i inode) kind() uint16     { return little.Uint16(i) & typeMask }
func (i inode) executable() bool { return little.Uint16(i)&0o111 != 0 }
func (i inode) flags() uint32    { return little.Uint32(i[0x20:]) }
func (i inode) contents() []byte { return i[0x28:0x64] }
func (i inode) size() (n int64) {
	n = int64(little.Uint32(i[0x4:])) | int64(little.Uint32(i[0x6c:]))<<32
	if n < 0 {
		return 0
	}
	return n
}

// inode reads an inode by its number.
func (f *reader) inode(number int64) (inode, error) {
	if number < 1 || number > f.inodes {
		return nil, fmt.Errorf("inode %d of %d", number, f.inodes)
	}
	group, index := (number-1)/f.inodesPerGroup, (number-1)%f.inodesPerGroup
	d := make([]byte, f.descriptor)
	if _, err := f.r.ReadAt(d, f.descriptors+group*f.descriptor); err != nil {
		return nil, err
	}
	table := int64(little.Uint32(d[8:]))
	if f.descriptor >= 64 {
		table |= int64(little.Uint32(d[0x28:])) << 32
	}
	if table <= 0 || table >= f.blocks {
		return nil, fmt.Errorf("inodes at block %d of %d", table, f.blocks)
	}
	i := make(inode, f.inodeSize)
	_, err := f.r.ReadAt(i, table*f.block+index*f.inodeSize)
	return i, err
}

// find returns the inode at a path, with symbolic links followed.
func (f *reader) find(path string) (inode, error) {
	at := []int64{rootInode}
	todo := strings.Split(path, "/")
	for hops := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		dir := at[len(at)-1]
		switch {
		case name == "" || name == ".":
			continue
		case name == "..":
			at = at[:max(1, len(at)-1)]
			continue
		}
		number, err := f.lookup(dir, name)
		if err != nil {
			return nil, err
		}
		i, err := f.inode(number)
		if err != nil {
			return nil, err
		}
		if i.kind() != typeSymlink {
			at = append(at, number)
			continue
		}
		if hops++; hops > maxHops || len(todo) > maxPath {
			return nil, errLoop
		}
		target, err := f.target(i)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(target, "/") {
			at = at[:1]
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return f.inode(at[len(at)-1])
}

// target returns what a symbolic link says.
func (f *reader) target(i inode) (string, error) {
	size := i.size()
	switch {
	case size >= maxPath:
		return "", fmt.Errorf("a symbolic link of %d bytes", size)
	case size < 60 && i.flags()&extentsFlag == 0:
		return string(i.contents()[:size]), nil
	}
	text, err := io.ReadAll(io.LimitReader(f.open(i), size))
	return string(text), err
}

// lookup returns the number of the inode that a directory has for a name.
func (f *reader) lookup(dir int64, name string) (int64, error) {
	i, err := f.inode(dir)
	if err != nil {
		return 0, err
	}
	if i.kind() != typeDirectory || i.size() > maxDirectory {
		return 0, errNoFile
	}
	data := f.open(i)
	block := make([]byte, f.block)
	for range i.size() / f.block {
		if _, err := io.ReadFull(data, block); err != nil {
			return 0, err
		}
		for at := 0; at+8 <= len(block); {
			length := int(little.Uint16(block[at+4:]))
			nameLength := int(block[at+6])
			if length < 8 || at+length > len(block) || 8+nameLength > length {
				break // what follows is not to be trusted
			}
			number := int64(little.Uint32(block[at:]))
			if number != 0 && string(block[at+8:at+8+nameLength]) == name {
				return number, nil
			}
			at += length
		}
	}
	return 0, errNoFile
}

// open returns what a file holds.
func (f *reader) open(i inode) io.Reader {
	if i.flags()&inlineDataFlag != 0 {
		return strings.NewReader(string(i.contents()[:min(i.size(), 60)]))
	}
	return io.LimitReader(&fileReader{f: f, i: i}, i.size())
}

// fileReader reads a file block by block.
type fileReader struct {
	f    *reader
	i    inode
	next int64 // block of the file
	rest []byte
}

func (r *fileReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		block, run, err := r.f.locate(r.i, r.next)
		if err != nil {
			return 0, err
		}
		run = min(run, (1<<20)/r.f.block)
		r.rest = make([]byte, run*r.f.block)
		if block != 0 {
			if n, err := r.f.r.ReadAt(r.rest, block*r.f.block); n < len(r.rest) && err != nil {
				return 0, err
			}
		}
		r.next += run
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// locate returns where a block of a file is, 0 for a hole, and how many blocks go
// on like that.
func (f *reader) locate(i inode, block int64) (at, run int64, err error) {
	if i.flags()&extentsFlag == 0 {
		return 0, 0, errors.New("a file without extents, as ext2 has them, which are not read")
	}
	node := i.contents()
	for depth := 0; ; depth++ {
		entries, level := int(little.Uint16(node[2:])), int(little.Uint16(node[6:]))
		if little.Uint16(node) != extentMagic || 12*(entries+1) > len(node) || depth > maxExtentDepth {
			return 0, 0, errors.New("a file with damaged extents")
		}
		if level == 0 {
			return f.leaf(node[:12*(entries+1)], block)
		}
		child := int64(-1)
		for e := range entries {
			entry := node[12*(e+1):]
			if int64(little.Uint32(entry)) <= block {
				child = int64(little.Uint32(entry[4:])) | int64(little.Uint16(entry[8:]))<<32
			}
		}
		if child < 0 {
			return 0, 1, nil
		}
		if child >= f.blocks {
			return 0, 0, errors.New("a file with damaged extents")
		}
		node = make([]byte, f.block)
		if _, err := f.r.ReadAt(node, child*f.block); err != nil {
			return 0, 0, err
		}
	}
}

// leaf looks for a block in a node with extents.
func (f *reader) leaf(node []byte, block int64) (at, run int64, err error) {
	for e := 12; e < len(node); e += 12 {
		first, length := int64(little.Uint32(node[e:])), int64(little.Uint16(node[e+4:]))
		start := int64(little.Uint32(node[e+8:])) | int64(little.Uint16(node[e+6:]))<<32
		hole := length > 32768 // set aside, and not written yet
		if hole {
			length -= 32768
		}
		if block < first || block >= first+length {
			continue
		}
		if start+length > f.blocks {
			return 0, 0, errors.New("a file with damaged extents")
		}
		if hole {
			return 0, first + length - block, nil
		}
		return start + block - first, first + length - block, nil
	}
	return 0, 1, nil
}
