package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Empty makes the file at path, which must not be there, an empty file system of
// size bytes that only its owner may open. Nearly all of it is holes, and it has
// no journal: it is for what ends with the machine that uses it.
func Empty(ctx context.Context, path string, size int64) (err error) {
	out, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make an empty file system: %w", err)
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	return newTree(nil).writeExt4(ctx, out, size, func(int64) {})
}
