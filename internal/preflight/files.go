package preflight

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"nex"
	"nex/internal/machine/microvm"
	"nex/internal/rootfs"
)

const makeImage = "make kernel, initramfs and root file system with nex image build, name yours in the configuration, or have nex node preflight --from DIR copy them"

// file looks at a file of an image, by the checks of the drivers.
func (p *probe) file(path, key string, check func(path string) error) Finding {
	f := found(path, "")
	switch err := check(path); {
	case errors.Is(err, fs.ErrNotExist):
		f = missing(fmt.Sprintf("there is no %s (%q)", path, key), makeImage)
	case err != nil:
		f = missing(err.Error(), makeImage)
	case p.vmm == nex.SandboxFirecracker && p.jailed():
		if err := p.jailShows(path); err != nil {
			f = missing(err.Error(), fmt.Sprintf("chown root %s, and chmod o+r,go-w %[1]s", path))
		}
	}
	return f.at(path)
}

func (p *probe) kernel(context.Context) Finding {
	path, _, _ := p.Settings.Image(p.StateDir)
	f := p.file(path, "kernel_filepath", microvm.CheckKernel)
	if f.Result == OK {
		f.Detail = manifestOf(path).Kernel.Version
	}
	return f
}

func (p *probe) initramfs(context.Context) Finding {
	_, path, _ := p.Settings.Image(p.StateDir)
	return p.file(path, "initramfs_filepath", microvm.CheckInitramfs)
}

func (p *probe) rootfs(ctx context.Context) Finding {
	_, _, path := p.Settings.Image(p.StateDir)
	f := p.file(path, "rootfs_filepath", microvm.CheckRootFS)
	if f.Result != OK {
		return f
	}
	inside, err := rootfs.Inspect(ctx, path)
	if err != nil {
		return missing(err.Error(), makeImage).at(path)
	}
	f.Detail = fmt.Sprintf("its agent has %d bytes", inside.AgentSize)
	if version := inside.Record.AgentVersion; version != "" && version != p.Version {
		return doubtful(fmt.Sprintf("%s has an agent of version %.60s, and this nex is of %s", path, version, p.Version), "make it again with nex image build").at(path)
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
