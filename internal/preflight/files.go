package preflight

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"nex/internal/rootfs"
)

const makeImage = "make kernel, initramfs and root file system with nex image build, name yours in the configuration, or have nex node preflight --from DIR copy them"

// file looks at a file of an image. good says what it is, or what is wrong.
func file(path, key string, good func(*os.File) (string, error)) Finding {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return missing(fmt.Sprintf("there is no %s (%q)", path, key), makeImage)
	}
	if err != nil {
		return missing(err.Error(), makeImage)
	}
	defer func() { _ = f.Close() }() // was only read
	info, err := f.Stat()
	switch {
	case err != nil:
		return missing(err.Error(), makeImage)
	case !info.Mode().IsRegular() || info.Size() == 0:
		return missing(path+" is no file, or empty", makeImage)
	}
	said, err := good(f)
	if err != nil {
		return missing(path+": "+err.Error(), makeImage)
	}
	return found(path, said)
}

func (p *probe) kernel(context.Context) Finding {
	path, _, _ := p.Settings.Image(p.StateDir)
	return file(path, "kernel_filepath", func(f *os.File) (string, error) {
		e, err := elf.NewFile(f)
		if err != nil {
			return "", fmt.Errorf("it is no ELF kernel (vmlinux): %w", err)
		}
		if e.Machine != elf.EM_X86_64 || e.Type != elf.ET_EXEC {
			return "", fmt.Errorf("it is an ELF file of %s, %s, and no kernel for amd64", e.Machine, e.Type)
		}
		return manifestOf(path).Kernel.Version, nil
	})
}

func (p *probe) initramfs(context.Context) Finding {
	_, path, _ := p.Settings.Image(p.StateDir)
	return file(path, "initramfs_filepath", func(f *os.File) (string, error) {
		head := make([]byte, 6)
		if _, err := io.ReadFull(f, head); err != nil || !strings.HasPrefix(string(head), "07070") && head[0] != 0x1f && head[0] != 0x28 && head[0] != 0xfd {
			return "", errors.New("it is no archive of the kind that kernels unpack (cpio, newc)")
		}
		return "", nil
	})
}

func (p *probe) rootfs(ctx context.Context) Finding {
	_, _, path := p.Settings.Image(p.StateDir)
	var inside rootfs.Facts
	f := file(path, "rootfs_filepath", func(*os.File) (_ string, err error) {
		if inside, err = rootfs.Inspect(ctx, path); err != nil {
			return "", err
		}
		return fmt.Sprintf("its agent has %d bytes", inside.AgentSize), nil
	})
	if f.Result != OK {
		return f
	}
	if version := inside.Record.AgentVersion; version != "" && version != p.Version {
		return doubtful(fmt.Sprintf("%s has an agent of version %.60s, and this nex is of %s", path, version, p.Version), "make it again with nex image build")
	}
	return f
}

// imageManifest is what is read of the description that nex image build puts
// beside the files of an image.
type imageManifest struct {
	Kernel struct{ Version string }
}

// manifestOf returns the description of the image that a file is part of, an empty
// one if there is none.
func manifestOf(path string) (m imageManifest) {
	f, err := os.Open(filepath.Join(filepath.Dir(path), "image.json"))
	if err != nil {
		return m
	}
	defer func() { _ = f.Close() }() // was only read
	if json.NewDecoder(io.LimitReader(f, 1<<20)).Decode(&m) != nil {
		return imageManifest{}
	}
	return m
}
