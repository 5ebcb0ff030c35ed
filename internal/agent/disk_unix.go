//go:build unix

package agent

import (
	"io/fs"
	"syscall"
)

// sizeOnDisk is less than the size of a file with holes.
func sizeOnDisk(info fs.FileInfo) int64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int64(s.Blocks) * 512
	}
	return info.Size()
}
