package rootfs

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// errNoExt4 means that a file holds something else.
var errNoExt4 = errors.New("not an ext4 file system")

// Facts of the file systems that are written here; see "ext4 Data Structures and
// Algorithms" in the kernel's documentation for what is where.
const (
	blockSize        = 4096
	blocksPerGroup   = 8 * blockSize // as many as a block of bits
	inodeSize        = 256
	inodesPerBlock   = blockSize / inodeSize
	descriptorSize   = 32
	firstInode       = 11    // those before are the file system's own
	bytesPerInode    = 16384 // as mke2fs has it
	superblockAt     = 1024
	superblockSize   = 1024
	ext4Magic        = 0xef53
	roCompatReadOnly = 0x1000
)

// Places in the superblock.
const (
	sbInodes         = 0x00
	sbBlocks         = 0x04
	sbFreeBlocks     = 0x0c
	sbFreeInodes     = 0x10
	sbLogBlockSize   = 0x18
	sbInodesPerGroup = 0x28
	sbMagic          = 0x38
	sbInodeSize      = 0x58
	sbIncompat       = 0x60
	sbRoCompat       = 0x64
	sbUUID           = 0x68
	sbName           = 0x78
	sbDescriptorSize = 0xfe
)

var little = binary.LittleEndian

// plan is where things are in a file system: superblock, descriptors of the
// block groups, what files hold, the inodes, the bitmaps, and what is free.
type plan struct {
	blocks, groups int64
	reserved       int64 // blocks that the descriptors may grow into
	table          int64 // block where the inodes begin
	inodesPerGroup int64
	used           int64 // inodes, all of which are the first ones
	freeBlocks     int64
	freeInodes     int64
}

// tableBlocks returns how many blocks the inodes take.
func (l *plan) tableBlocks() int64 { return l.groups * l.inodesPerGroup / inodesPerBlock }

// bitmaps returns the block where the bitmaps begin, two for each group.
func (l *plan) bitmaps() int64 { return l.table + l.tableBlocks() }

// end returns the block behind all that is in use.
func (l *plan) end() int64 { return l.bitmaps() + 2*l.groups }

// descriptorBlocks returns how many blocks the group descriptors take.
func (l *plan) descriptorBlocks() int64 { return ceil(l.groups*descriptorSize, blockSize) }

func ceil(n, by int64) int64 { return (n + by - 1) / by }

// reservedDescriptorBlocks returns what tar2ext4 sets aside for the descriptors
// of a file system that may have that many bytes.
func reservedDescriptorBlocks(limit int64) int64 {
	return ceil(ceil(ceil(limit, blockSize), blocksPerGroup)*descriptorSize, blockSize)
}

// layOut gives the file system that tar2ext4 wrote the size that was asked for.
// What it wrote is read-only, has no room and hardly an inode to spare, and
// e2fsck finds fault with its bitmaps. Its inodes come last, group by group
// without a gap, so that they stay where they are when there get to be more of
// them, and only bitmaps and descriptors are written anew.
func layOut(f *os.File, size, limit int64) error {
	super := make([]byte, superblockSize)
	if _, err := f.ReadAt(super, superblockAt); err != nil {
		return fmt.Errorf("read the superblock: %w", err)
	}
	descriptor := make([]byte, descriptorSize)
	if _, err := f.ReadAt(descriptor, blockSize); err != nil {
		return fmt.Errorf("read the first group descriptor: %w", err)
	}
	l := &plan{table: int64(little.Uint32(descriptor[8:])), reserved: reservedDescriptorBlocks(limit)}
	table := make([]byte, int64(little.Uint32(super[sbInodes:]))*inodeSize)
	if _, err := f.ReadAt(table, l.table*blockSize); err != nil {
		return fmt.Errorf("read the inodes: %w", err)
	}
	l.used = lastInode(table)
	if err := l.fit(size); err != nil {
		return err
	}
	// Away with the old bitmaps, which leaves zeros.
	if err := errors.Join(f.Truncate((l.table+ceil(l.used, inodesPerBlock))*blockSize), f.Truncate(size/blockSize*blockSize)); err != nil {
		return err
	}
	descriptors, err := l.writeBitmaps(f, table)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(descriptors, blockSize); err != nil {
		return err
	}
	l.fill(super, table)
	_, err = f.WriteAt(super, superblockAt)
	return err
}

// lastInode returns the number of the last inode in use, which is the size of
// the table in use.
func lastInode(table []byte) int64 {
	for n := int64(len(table)) / inodeSize; n >= firstInode; n-- {
		if inodeMode(table, n) != 0 {
			return n
		}
	}
	return firstInode
}

// inodeMode returns type and permissions of an inode; 0 is none.
func inodeMode(table []byte, inode int64) uint16 {
	at := (inode - 1) * inodeSize
	if at+2 > int64(len(table)) {
		return 0
	}
	return little.Uint16(table[at:])
}

// fit finds a place for everything in size bytes, with as many spare inodes as
// usual, or as there is room for.
func (l *plan) fit(size int64) error {
	l.blocks = size / blockSize
	l.groups = max(1, ceil(l.blocks, blocksPerGroup))
	spare := max(size/bytesPerInode, l.used+inodesPerBlock)
	for wanted := spare; ; wanted = max(l.used, wanted/2) {
		perGroup := ceil(ceil(wanted, l.groups), inodesPerBlock) * inodesPerBlock
		if l.inodesPerGroup = perGroup; perGroup <= blocksPerGroup && l.end() <= l.blocks && l.descriptorBlocks() <= l.reserved {
			return nil
		}
		if wanted == l.used {
			return &TooSmallError{Size: size, Need: l.least()}
		}
	}
}

// least returns the bytes of the smallest file system for what there is.
func (l *plan) least() int64 {
	m := *l
	for m.groups = 1; ; m.groups++ {
		m.inodesPerGroup = ceil(ceil(m.used, m.groups), inodesPerBlock) * inodesPerBlock
		if m.inodesPerGroup <= blocksPerGroup && m.end() <= m.groups*blocksPerGroup {
			return max(m.end(), (m.groups-1)*blocksPerGroup+1) * blockSize
		}
	}
}

// writeBitmaps writes what is in use, group by group, and returns the descriptors
// of the groups.
func (l *plan) writeBitmaps(f io.WriterAt, table []byte) ([]byte, error) {
	descriptors := make([]byte, l.descriptorBlocks()*blockSize)
	for g := range l.groups {
		bits := make([]byte, 2*blockSize)
		freeBlocks := l.markBlocks(bits[:blockSize], g)
		freeInodes, directories := l.markInodes(bits[blockSize:], table, g)
		at := l.bitmaps() + 2*g
		if _, err := f.WriteAt(bits, at*blockSize); err != nil {
			return nil, err
		}
		d := descriptors[g*descriptorSize:]
		little.PutUint32(d[0:], uint32(at))
		little.PutUint32(d[4:], uint32(at+1))
		little.PutUint32(d[8:], uint32(l.table+g*l.inodesPerGroup/inodesPerBlock))
		little.PutUint16(d[12:], uint16(freeBlocks))
		little.PutUint16(d[14:], uint16(freeInodes))
		little.PutUint16(d[16:], uint16(directories))
		l.freeBlocks += freeBlocks
		l.freeInodes += freeInodes
	}
	return descriptors, nil
}

// markBlocks sets the bits of a group's blocks that are in use or not there.
func (l *plan) markBlocks(bits []byte, group int64) (free int64) {
	for i := range int64(blocksPerGroup) {
		block := group*blocksPerGroup + i
		spare := block > l.descriptorBlocks() && block <= l.reserved
		if block < l.blocks && (block >= l.end() || spare) {
			free++
			continue
		}
		bits[i/8] |= 1 << (i % 8)
	}
	return free
}

// markInodes sets the bits of a group's inodes that are in use or not there.
func (l *plan) markInodes(bits, table []byte, group int64) (free, directories int64) {
	for i := range int64(blocksPerGroup) {
		inode := group*l.inodesPerGroup + i + 1
		mode := inodeMode(table, inode)
		if i < l.inodesPerGroup && inode >= firstInode && mode == 0 {
			free++
			continue
		}
		bits[i/8] |= 1 << (i % 8)
		if i < l.inodesPerGroup && mode&typeMask == typeDirectory {
			directories++
		}
	}
	return free, directories
}

// fill brings the superblock up to date. The name that programs know the file
// system by is made of its inodes.
func (l *plan) fill(super, table []byte) {
	little.PutUint32(super[sbInodes:], uint32(l.groups*l.inodesPerGroup))
	little.PutUint32(super[sbBlocks:], uint32(l.blocks))
	little.PutUint32(super[sbFreeBlocks:], uint32(l.freeBlocks))
	little.PutUint32(super[sbFreeInodes:], uint32(l.freeInodes))
	little.PutUint32(super[sbInodesPerGroup:], uint32(l.inodesPerGroup))
	little.PutUint32(super[sbRoCompat:], little.Uint32(super[sbRoCompat:])&^roCompatReadOnly)
	sum := sha256.Sum256(table)
	uuid := super[sbUUID : sbUUID+16]
	copy(uuid, sum[:])
	uuid[6] = uuid[6]&0x0f | 0x80 // version 8 of RFC 9562: the maker's own
	uuid[8] = uuid[8]&0x3f | 0x80
	copy(super[sbName:sbName+16], "nex")
}
