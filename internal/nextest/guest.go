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
	build := exec.CommandContext(t.Context(), nex, "image", "build", "--output", dir, "--kernel-dir", kernel, "--init", first, "--agent", agent)
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build a guest image: %v\n%s", err, output)
	}
	if images.dir == nil {
		images.dir = map[string]string{}
	}
	images.dir[agent] = dir
	return dir
}
