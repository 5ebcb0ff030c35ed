//go:build !unix

package agent

import "io/fs"

func sizeOnDisk(info fs.FileInfo) int64 { return info.Size() }
