package nextest

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// GuestInit returns the first program of microVMs, static and for Linux. The
// package's TestMain must be [Main].
func GuestInit(t testing.TB) string {
	t.Helper()
	return built.program(t, "nex-init", "CGO_ENABLED=0", "-trimpath", "-ldflags", "-s -w", "./cmd/nex-init")
}

// KernelDir returns a directory where Debian's kernel for virtual machines was
// unpacked, which make test does and names in NEX_TEST_KERNEL. Without it the
// test is skipped, in CI it fails.
func KernelDir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("NEX_TEST_KERNEL")
	if dir == "" {
		missing(t, "NEX_TEST_KERNEL names no kernel for guests; make bin/kernel unpacks one")
	}
	return dir
}

// images are built once for all tests of a package, by the agent in them.
var images struct {
	mu  sync.Mutex
	dir map[string]string
}

// GuestImage returns a directory with an image that microVMs boot: vmlinux,
// initramfs and rootfs.ext4, with the agent at a path, which is static. Nobody
// changes what is in it. The package's TestMain must be [Main].
func GuestImage(t testing.TB, agent string) string {
	t.Helper()
	name := "image-" + filepath.Base(agent)
	if dir := os.Getenv(programsVariable); dir != "" {
		return filepath.Join(dir, name)
	}
	kernel, first := KernelDir(t), GuestInit(t)
	nex := built.program(t, "nex", "CGO_ENABLED=0", "./cmd/nex")
	images.mu.Lock()
	defer images.mu.Unlock()
	if dir := images.dir[agent]; dir != "" {
		return dir
	}
	dir := filepath.Join(filepath.Dir(nex), name)
	if err := os.Mkdir(dir, 0o755); err != nil { // for other users' tests, too
		t.Fatal(err)
	}
	run(t, nex, "image", "build", "--output", dir, "--kernel-dir", kernel, "--init", first, "--agent", agent)
	if images.dir == nil {
		images.dir = map[string]string{}
	}
	images.dir[agent] = dir
	return dir
}

// GuestImageOf is [GuestImage] with a root file system that is made of a base, of the given size,
// for the test alone: what nex rootfs takes as --image and --size.
func GuestImageOf(t testing.TB, agent, base, size string) string {
	t.Helper()
	kernel, first := KernelDir(t), GuestInit(t)
	nex := built.program(t, "nex", "CGO_ENABLED=0", "./cmd/nex")
	dir, rootfs := t.TempDir(), filepath.Join(t.TempDir(), "rootfs.ext4")
	run(t, nex, "rootfs", "--image", base, "--agent", agent, "--size", size, "--output", rootfs)
	run(t, nex, "image", "build", "--output", dir, "--kernel-dir", kernel, "--init", first, "--rootfs", rootfs)
	return dir
}

// run runs a program that must succeed.
func run(t testing.TB, program string, args ...string) {
	t.Helper()
	if output, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", filepath.Base(program), args, err, output)
	}
}
