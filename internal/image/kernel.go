package image

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// kernelPackage depends on Debian's newest kernel for virtual machines.
const kernelPackage = "linux-image-cloud-amd64"

// kernel is what an image has of a kernel.
type kernel struct {
	version string // its release, as in 6.1.0-56-cloud-amd64
	source  string // the file it came from
	sha256  string // of that file, "" if it was a directory
	elf     []byte
	modules []module
}

// fetchKernel has apt download Debian's kernel for virtual machines, as any user,
// without installing it, and returns the path of the package.
func fetchKernel(ctx context.Context, dir string) (string, error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "", errors.New("there is no apt-get here to fetch a kernel: name one with --kernel-deb (a linux-image-…-cloud-amd64 package of Debian), or with --kernel and --modules")
	}
	listed, err := apt(ctx, dir, "apt-cache", "depends", "--important", kernelPackage+":amd64")
	if err != nil {
		return "", fmt.Errorf("find Debian's kernel %s: %w (run apt-get update first, or name a package with --kernel-deb)", kernelPackage, err)
	}
	name := ""
	for line := range strings.Lines(listed) {
		_, depends, ok := strings.Cut(line, "Depends:")
		if ok && strings.HasPrefix(strings.TrimSpace(depends), "linux-image-") {
			name = strings.TrimSpace(depends)
		}
	}
	if name == "" {
		return "", fmt.Errorf("apt knows no kernel that %s depends on: run apt-get update first, or name a package with --kernel-deb", kernelPackage)
	}
	if _, err := apt(ctx, dir, "apt-get", "download", "-q", "-o", "APT::Sandbox::User=", name); err != nil {
		return "", fmt.Errorf("download %s: %w (run apt-get update first, or name a package with --kernel-deb)", name, err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "linux-image-*.deb"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("apt-get download left %d packages (%v)", len(found), err)
	}
	return found[0], nil
}

// waitDelay is how long what a program has started may hold its output after its end.
const waitDelay = time.Second

// apt runs a program of apt and returns what it printed.
func apt(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.WaitDelay = dir, waitDelay
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", fmt.Errorf("%w: %.300s", err, strings.TrimSpace(complaint.String()))
	}
	return out.String(), nil
}

// kernelFromPackage reads a kernel from a Debian package; dir is for its files.
func kernelFromPackage(ctx context.Context, path, dir string) (kernel, error) {
	f, err := os.Open(path)
	if err != nil {
		return kernel{}, err
	}
	defer func() { _ = f.Close() }() // was only read
	if err := unpackDeb(ctx, f, dir); err != nil {
		return kernel{}, fmt.Errorf("%s: %w", path, err)
	}
	k, err := kernelFromDirectory(dir)
	if err != nil {
		return kernel{}, fmt.Errorf("%s: %w", path, err)
	}
	k.source = filepath.Base(path)
	k.sha256, err = fileDigest(ctx, path)
	return k, err
}

// kernelFromDirectory reads a kernel from where a package was unpacked, or from
// the root of a system.
func kernelFromDirectory(dir string) (kernel, error) {
	found, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil {
		return kernel{}, err
	}
	if len(found) == 0 {
		return kernel{}, errors.New("no kernel (boot/vmlinuz-…) in it")
	}
	newest := slices.MaxFunc(found, compareReleases)
	release := strings.TrimPrefix(filepath.Base(newest), "vmlinuz-")
	for _, modules := range []string{"lib/modules", "usr/lib/modules"} {
		path := filepath.Join(dir, modules, release)
		if _, err := os.Stat(path); err == nil {
			return kernelFromFiles(newest, path, release)
		}
	}
	return kernel{}, fmt.Errorf("no modules of kernel %s (lib/modules/%s) in it", release, release)
}

// compareReleases compares what is called by the releases of kernels: numbers in them
// as numbers, so that 6.1.0-10 is newer than 6.1.0-9, and the rest as text.
func compareReleases(a, b string) int {
	for a != "" && b != "" {
		var m, n string
		m, a = run(a)
		n, b = run(b)
		if isNumber(m) && isNumber(n) {
			m, n = strings.TrimLeft(m, "0"), strings.TrimLeft(n, "0")
			if c := cmp.Compare(len(m), len(n)); c != 0 {
				return c
			}
		}
		if c := strings.Compare(m, n); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

// run cuts the digits that text begins with, or what is before its first.
func run(text string) (first, rest string) {
	digits := isNumber(text)
	end := strings.IndexFunc(text, func(r rune) bool { return (r >= '0' && r <= '9') != digits })
	if end < 0 {
		end = len(text)
	}
	return text[:end], text[end:]
}

// isNumber reports whether text begins with a digit.
func isNumber(text string) bool { return text[0] >= '0' && text[0] <= '9' }

// kernelFromFiles reads a kernel and its modules. Without a directory of modules
// it must have all that guests need built in.
func kernelFromFiles(path, modules, release string) (kernel, error) {
	data, err := readBounded(path, maxKernel)
	if err != nil {
		return kernel{}, err
	}
	k := kernel{version: release, source: filepath.Base(path)}
	if k.elf, err = vmlinux(data); err != nil {
		return kernel{}, fmt.Errorf("%s: %w", path, err)
	}
	if k.version == "" {
		k.version = banner(k.elf)
	}
	if modules != "" {
		k.modules, err = modulesOf(modules)
	}
	return k, err
}

// banner returns the release that a kernel says it is, "" if it does not.
func banner(elf []byte) string {
	const before = "Linux version "
	_, rest, ok := bytes.Cut(elf, []byte(before))
	for ok {
		release, _, _ := strings.Cut(string(rest[:min(len(rest), 128)]), " ")
		if release != "" && release[0] >= '0' && release[0] <= '9' {
			return release
		}
		_, rest, ok = bytes.Cut(rest, []byte(before))
	}
	return ""
}

// readBounded reads a file of at most that many bytes.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // was only read
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return data, err
}
