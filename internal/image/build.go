// Package image makes what microVMs boot: a kernel, its first root file system
// with the modules and the first program, and the read-only root file system with
// the agent. It needs no root and no Docker, and downloads nothing but Debian's kernel, by
// apt. It keeps images in a store, as directories whose files never change, and shares
// equal ones. Functions may be called concurrently; a store takes care that two processes
// do not write at once.
package image

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"nex/internal/rootfs"
)

// Options say what to build.
type Options struct {
	// The kernel: a file with the directory of its modules ("" where it has
	// all built in), or a Debian package, or a directory where one was unpacked.
	// With none of them apt downloads Debian's.
	KernelFile, Modules, KernelDeb, KernelDir string

	Init   []byte // the first program of guests; required
	Agent  string // path of the agent for guests; required without Rootfs
	Rootfs string // path of an ext4 file system that has the agent, to use instead of a minimal one
	Size   int64  // of the minimal file system, in bytes; 0 is as small as it gets

	Progress func(stage string) // if set, is told what is being done
}

// Build writes an image into dir, which must be there and be empty.
func Build(ctx context.Context, dir string, o Options) (Image, error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	i := Image{Format: format, Arch: "amd64", Created: time.Now().UTC().Format(time.RFC3339), Files: map[string]File{}}
	i.Init = Origin{SHA256: digestOf(o.Init)}
	if len(o.Init) == 0 {
		return Image{}, errors.New("no first program for guests")
	}
	k, err := o.kernel(ctx)
	if err != nil {
		return Image{}, fmt.Errorf("kernel: %w", err)
	}
	i.Kernel = Origin{Version: k.version, Source: k.source, SHA256: k.sha256}
	for _, m := range k.modules {
		i.Modules = append(i.Modules, m.name)
	}
	o.Progress("write kernel and initramfs")
	var first bytes.Buffer
	if err := initramfs(&first, o.Init, k.modules); err != nil {
		return Image{}, err
	}
	if err := errors.Join(writeFile(filepath.Join(dir, Kernel), k.elf), writeFile(filepath.Join(dir, Initramfs), first.Bytes())); err != nil {
		return Image{}, err
	}
	if err := o.rootfs(ctx, dir, &i); err != nil {
		return Image{}, fmt.Errorf("root file system: %w", err)
	}
	o.Progress("compute digests")
	for _, name := range parts {
		if i.Files[name], err = describe(ctx, filepath.Join(dir, name)); err != nil {
			return Image{}, err
		}
	}
	return i, i.write(dir)
}

// kernel reads the kernel, wherever it is.
func (o Options) kernel(ctx context.Context) (kernel, error) {
	switch {
	case o.KernelFile != "":
		o.Progress("unpack kernel")
		k, err := kernelFromFiles(o.KernelFile, o.Modules, "")
		if err != nil {
			return kernel{}, err
		}
		k.sha256, err = fileDigest(ctx, o.KernelFile)
		return k, err
	case o.KernelDir != "":
		o.Progress("unpack kernel")
		return kernelFromDirectory(o.KernelDir)
	}
	dir, err := os.MkdirTemp("", "nex-kernel-*")
	if err != nil {
		return kernel{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // temporary
	deb := o.KernelDeb
	if deb == "" {
		o.Progress("download kernel")
		if deb, err = fetchKernel(ctx, dir); err != nil {
			return kernel{}, err
		}
	}
	o.Progress("unpack kernel")
	return kernelFromPackage(ctx, deb, filepath.Join(dir, "files"))
}

// rootfs writes the root file system.
func (o Options) rootfs(ctx context.Context, dir string, i *Image) error {
	o.Progress("write root file system")
	to := filepath.Join(dir, Rootfs)
	if o.Rootfs != "" {
		return o.takeRootfs(ctx, to, i)
	}
	var err error
	if i.Agent.SHA256, err = fileDigest(ctx, o.Agent); err != nil {
		return err
	}
	i.Agent.Version = AgentVersion(ctx, o.Agent)
	i.Rootfs.Source = "minimal"
	size := o.Size
	if size == 0 {
		info, err := os.Stat(o.Agent)
		if err != nil {
			return err
		}
		size = info.Size() + info.Size()/32 + 1<<20
	}
	if _, err = rootfs.Build(ctx, rootfs.Options{Agent: o.Agent, AgentVersion: i.Agent.Version, Size: size, Output: to}); err != nil {
		return err
	}
	return os.Chmod(to, fileMode)
}

// takeRootfs copies a root file system that is there and has an agent.
func (o Options) takeRootfs(ctx context.Context, to string, i *Image) error {
	facts, err := rootfs.Inspect(ctx, o.Rootfs)
	if err != nil {
		return err
	}
	i.Agent = Origin{Version: facts.Record.AgentVersion, SHA256: facts.AgentSHA256}
	i.Rootfs = Origin{Version: facts.Record.Digest, Source: cmp.Or(facts.Record.Base, filepath.Base(o.Rootfs))}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return finish(out, rootfs.Unpack(ctx, o.Rootfs, out))
}

// AgentVersion returns what the agent says its version is, "" if it cannot run here.
func AgentVersion(ctx context.Context, path string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	path, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.WaitDelay = waitDelay
	out, err := cmd.Output()
	if err != nil || len(out) > 200 {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// Export writes an image into a directory of the user's, file by file, over those
// of an image that is there. Nodes find it there by "default_resource_dir".
func Export(ctx context.Context, dir string, o Options) (Image, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Image{}, err
	}
	temp, err := os.MkdirTemp(dir, building)
	if err != nil {
		return Image{}, err
	}
	defer func() { _ = os.RemoveAll(temp) }() // its files were moved, or are of no use
	i, err := Build(ctx, temp, o)
	if err != nil {
		return Image{}, err
	}
	for _, name := range []string{Kernel, Initramfs, Rootfs, Manifest} {
		if err := os.Rename(filepath.Join(temp, name), filepath.Join(dir, name)); err != nil {
			return Image{}, err
		}
	}
	return i, syncDir(dir)
}
