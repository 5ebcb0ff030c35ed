package rootfs

import (
	"errors"
	"fmt"
	"io"
)

// errNoExt4 means that a file holds something else.
var errNoExt4 = errors.New("not an ext4 file system")

// sizes returns the size of the file system in r and how much of it is free, in
// bytes.
func sizes(r io.ReaderAt) (size, free int64, err error) {
	super := make([]byte, superblockSize)
	if _, err := r.ReadAt(super, superblockAt); err != nil || little.Uint16(super[sbMagic:]) != ext4Magic {
		return 0, 0, errNoExt4
	}
	log := little.Uint32(super[sbLogBlockSize:])
	if log > 6 {
		return 0, 0, fmt.Errorf("%w: blocks of 2^%d KiB", errNoExt4, log)
	}
	unit := int64(1024) << log
	return int64(little.Uint32(super[sbBlocks:])) * unit, int64(little.Uint32(super[sbFreeBlocks:])) * unit, nil
}
