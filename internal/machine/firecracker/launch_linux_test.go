package firecracker

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nex/internal/guest"
	"nex/internal/machine"
	"nex/internal/machine/firecracker/fcemu"
	"nex/internal/machine/microvm"
	"nex/internal/nextest"
)

func launcher(t *testing.T) *Launcher {
	dir := os.Getenv("NEX_TEST_IMAGE")
	if dir == "" {
		t.Skip("no image")
	}
	p := fcemu.Install(t, tools, nextest.Program(t, "qemu-system-x86_64"), "")
	return &Launcher{
		Config: &microvm.Config{
			Kernel: filepath.Join(dir, "vmlinux"), Initramfs: filepath.Join(dir, "initramfs"), RootFS: filepath.Join(dir, "rootfs.ext4"),
			CPUs: 1, MemoryMiB: 128, DiskMiB: 64, Dir: t.TempDir(), Templates: t.TempDir(),
			Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
		},
		Firecracker: p.Firecracker, Boot: time.Minute,
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
