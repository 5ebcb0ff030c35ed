package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// fileMode is that of an image's files: they never change, and a VMM that runs as a
// user of its own reads them where its jail shows them.
const fileMode = 0o444

// writeFile writes a new file of an image.
func writeFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return finish(f, err)
}

// finish makes a file that was written last.
func finish(f *os.File, err error) error {
	if err == nil {
		err = errors.Join(f.Chmod(fileMode), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", f.Name(), err)
	}
	return nil
}

// write writes the manifest.
func (i Image) write(dir string) error {
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, Manifest), append(data, '\n'))
}

// describe returns size and digest of a file.
func describe(ctx context.Context, path string) (File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return File{}, err
	}
	digest, err := fileDigest(ctx, path)
	return File{Size: info.Size(), SHA256: digest}, err
}
