package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Names of the files of an image.
const (
	Kernel    = "vmlinux"     // the kernel, an ELF file
	Initramfs = "initramfs"   // its first root file system
	Rootfs    = "rootfs.ext4" // the file system with the agent
	Manifest  = "image.json"  // what they are
)

// parts are the files that a microVM boots.
var parts = []string{Kernel, Initramfs, Rootfs}

// format is the version of the manifest.
const format = 1

// Image says what an image is made of.
type Image struct {
	Format  int             `json:"format"`
	Name    string          `json:"name,omitempty"` // in the store; it goes by the directory
	Arch    string          `json:"arch"`           // as Go has it
	Created string          `json:"created"`        // RFC 3339
	Kernel  Origin          `json:"kernel"`
	Agent   Origin          `json:"agent"`
	Init    Origin          `json:"init"`
	Rootfs  Origin          `json:"rootfs"`
	Modules []string        `json:"modules"` // in the order in which guests load them
	Files   map[string]File `json:"files"`   // by name
}

// Origin says where a part of an image came from.
type Origin struct {
	Version string `json:"version,omitempty"` // as it says itself
	Source  string `json:"source,omitempty"`  // name of a file or of an image
	SHA256  string `json:"sha256,omitempty"`  // of that file
}

// File is a file of an image.
type File struct {
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256"`
}

// Read returns what the image in a directory says it is.
func Read(dir string) (Image, error) {
	data, err := readBounded(filepath.Join(dir, Manifest), 1<<20)
	if err != nil {
		return Image{}, err
	}
	var i Image
	if err := json.Unmarshal(data, &i); err != nil {
		return Image{}, fmt.Errorf("%s: %w", filepath.Join(dir, Manifest), err)
	}
	if i.Format != format {
		return Image{}, fmt.Errorf("%s has format %d, and this build of nex knows %d: build the image again", filepath.Join(dir, Manifest), i.Format, format)
	}
	for _, name := range parts {
		if f, ok := i.Files[name]; !ok || !isDigest(f.SHA256) {
			return Image{}, fmt.Errorf("%s says nothing of use about %s: build the image again", filepath.Join(dir, Manifest), name)
		}
	}
	return i, nil
}

func isDigest(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == sha256.Size
}

// Verify reads the files of the image in a directory and compares them with what
// it says of them; all that is wrong is in the error.
func Verify(ctx context.Context, dir string) (Image, error) {
	i, err := Read(dir)
	if err != nil {
		return Image{}, err
	}
	var wrong []error
	for _, name := range parts {
		digest, err := fileDigest(ctx, filepath.Join(dir, name))
		switch {
		case err != nil:
			wrong = append(wrong, err)
		case digest != i.Files[name].SHA256:
			wrong = append(wrong, fmt.Errorf("%s has changed: its SHA-256 is %s and was %s", filepath.Join(dir, name), digest, i.Files[name].SHA256))
		}
	}
	return i, errors.Join(wrong...)
}

// fileDigest returns the SHA-256 of a file, in hex.
func fileDigest(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // was only read
	h := sha256.New()
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		if _, err := io.CopyN(h, f, 8<<20); errors.Is(err, io.EOF) {
			return hex.EncodeToString(h.Sum(nil)), nil
		} else if err != nil {
			return "", fmt.Errorf("read %s: %w", path, err)
		}
	}
}

// digestOf returns the SHA-256 of data, in hex.
func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
