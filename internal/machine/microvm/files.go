package microvm

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
)

// Check says what of the image is not there, cannot be read, or is of another kind
// than VMMs and kernels take.
func (c *Config) Check() error {
	for _, f := range []struct {
		what, path, key string
		check           func(path string) error
	}{
		{"kernel", c.Kernel, "kernel_filepath", CheckKernel},
		{"initramfs", c.Initramfs, "initramfs_filepath", CheckInitramfs},
		{"root file system", c.RootFS, "rootfs_filepath", CheckRootFS},
	} {
		if f.path == "" {
			return fmt.Errorf("no %s for microVMs (%s)", f.what, f.key)
		}
		if err := f.check(f.path); err != nil {
			return fmt.Errorf("%s of microVMs (%s): %w", f.what, f.key, err)
		}
	}
	return nil
}

// CheckKernel says what is wrong with a file as a kernel of guests.
func CheckKernel(path string) error {
	return checkFile(path, func(f *os.File) error {
		e, err := elf.NewFile(f)
		if err != nil {
			return fmt.Errorf("it is no ELF kernel (vmlinux): %w", err)
		}
		if e.Machine != elf.EM_X86_64 || e.Type != elf.ET_EXEC {
			return fmt.Errorf("it is an ELF file of %s, %s, and no kernel for amd64", e.Machine, e.Type)
		}
		return nil
	})
}

// CheckInitramfs says what is wrong with a file as the first file system of guests,
// which their kernel unpacks: an archive of cpio, as it is or compressed with gzip,
// zstd or xz.
func CheckInitramfs(path string) error {
	return checkFile(path, func(f *os.File) error {
		head, err := at(f, 0, 6)
		if err != nil {
			return err
		}
		for _, magic := range []string{"07070", gzipped, "\x28\xb5\x2f\xfd", "\xfd7zXZ\x00"} {
			if bytes.HasPrefix(head, []byte(magic)) {
				return nil
			}
		}
		return errors.New("it is no archive of the kind that kernels unpack (cpio, newc)")
	})
}

// gzipped is how a file that is compressed with gzip begins.
const gzipped = "\x1f\x8b"

// CheckRootFS says what is wrong with a file as the disk that guests mount first. It
// does not look into its file system.
func CheckRootFS(path string) error {
	return checkFile(path, func(f *os.File) error {
		head, err := at(f, 0, len(gzipped))
		if err != nil {
			return err
		}
		if string(head) == gzipped {
			return errors.New("it is compressed, and guests get it as it is: unpack it (gunzip), or make an image of it with nex image build --rootfs")
		}
		const superblock, magicInside = 1024, 56 // see the kernel's Documentation/filesystems/ext4/super.rst
		magic, err := at(f, superblock+magicInside, 2)
		if err != nil {
			return err
		}
		if magic[0] != 0x53 || magic[1] != 0xef {
			return errors.New("it is no ext4 file system")
		}
		return nil
	})
}

// at reads n bytes from a place in a file, zeros behind its end.
func at(f *os.File, place int64, n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := f.ReadAt(b, place); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

// checkFile opens a file to be looked at. Errors name it.
func checkFile(path string, look func(*os.File) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // was only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return fmt.Errorf("%s is no file, or empty", path)
	}
	if err := look(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
