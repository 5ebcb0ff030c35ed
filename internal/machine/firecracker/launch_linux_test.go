package firecracker

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"nex/internal/guest"
	"nex/internal/machine"
	"nex/internal/machine/firecracker/fcemu"
	"nex/internal/nextest"
)

func testImage(t *testing.T) Image {
	dir := os.Getenv("NEX_TEST_IMAGE")
	if dir == "" {
		t.Skip("no image")
	}
	return Image{Kernel: filepath.Join(dir, "vmlinux"), Initramfs: filepath.Join(dir, "initramfs"), RootFS: filepath.Join(dir, "rootfs.ext4")}
}

func launcher(t *testing.T) *Launcher {
	p := fcemu.Install(t, tools, nextest.Program(t, "qemu-system-x86_64"), "")
	return &Launcher{
		Firecracker: p.Firecracker, Dir: t.TempDir(), Image: testImage(t), Boot: time.Minute,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		Disk: func(path string) error {
			return exec.Command("mkfs.ext4", "-q", "-F", path, "64M").Run()
		},
	}
}

func TestBoot(t *testing.T) {
	l := launcher(t)
	start := time.Now()
	m, err := l.Launch(t.Context(), "m1")
	if err != nil {
		t.Fatal(err)
	}
	t.Log("connected", time.Since(start))
	c, err := guest.Greet(t.Context(), m.Link())
	if err != nil {
		t.Fatal(err)
	}
	t.Log("hello", time.Since(start), c.Hello())
	now := time.Now()
	if err := m.Destroy(context.Background()); err != nil {
		t.Error(err)
	}
	c.Close()
	t.Log("destroyed in", time.Since(now))
	left, _ := os.ReadDir(l.Dir)
	t.Log(left)
	_ = machine.Launcher(l)
}
