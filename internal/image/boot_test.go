package image

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nex/internal/nextest"
	"nex/internal/rootfs"
)

// bootDeadline bounds a boot under software emulation on a busy machine.
const bootDeadline = 4 * time.Minute

// boot runs the image in a directory until the machine ends, and returns what its
// console said. args are more of QEMU's, options more for the kernel.
func boot(t *testing.T, dir, options string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, nextest.Program(t, "qemu-system-x86_64"), append([]string{
		"-M", "microvm,accel=tcg", "-cpu", "max", "-m", "192", "-global", "virtio-mmio.force-legacy=false",
		"-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio",
		"-kernel", filepath.Join(dir, Kernel), "-initrd", filepath.Join(dir, Initramfs),
		"-append", "console=ttyS0 quiet reboot=t panic=-1 tsc=reliable tsc_early_khz=" + clock(t) + " " + options,
	}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("qemu: %v\n%s", err, out)
	}
	return string(out)
}

// clock returns the speed of the time stamp counter in kHz; a guest that measures
// it on a busy machine may measure for ever.
func clock(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Skip("no /proc/cpuinfo: ", err)
	}
	_, rest, _ := strings.Cut(string(text), "cpu MHz")
	mhz := 0.0
	if _, err := fmt.Sscanf(rest, " : %g", &mhz); err != nil {
		t.Skip("/proc/cpuinfo has no clock: ", err)
	}
	return fmt.Sprint(int(mhz * 1000))
}

func drive(name, path, more string) []string {
	return []string{"-drive", "if=none,format=raw,id=" + name + ",file=" + path + more, "-device", "virtio-blk-device,drive=" + name}
}

// TestBoot boots an image in a real machine, with a program in the agent's place
// that tells what it sees.
func TestBoot(t *testing.T) {
	probe := filepath.Join(t.TempDir(), "probe")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", probe, "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the probe: %v\n%s", err, out)
	}
	dir := t.TempDir()
	if _, err := Build(t.Context(), dir, Options{KernelDir: nextest.KernelDir(t), Init: firstProgram(t), Agent: probe}); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if err := rootfs.Empty(t.Context(), disk, 1<<30); err != nil {
		t.Fatal(err)
	}
	image := drive("image", filepath.Join(dir, Rootfs), ",readonly=on")
	own := drive("own", disk, "")
	port := []string{"-device", "virtio-serial-device", "-chardev", "null,id=link", "-device", "virtserialport,chardev=link,name=nex.link"}
	usual := []string{"probe: process 1, program /usr/local/bin/agent", "mount / overlay", "mount /proc proc", "mount /sys sysfs", "mount /dev devtmpfs",
		"mounts read <nil>", "written <nil>", "initramfs is gone true"}
	for _, c := range []struct {
		name, options string
		args          [][]string
		want          []string
	}{
		{"its own disk", "", [][]string{image, own, port}, append(usual, "port nex.link")},
		{"no disk of its own", "nex.init=/usr/local/bin/agent", [][]string{image}, usual},
		{"no such program", "nex.init=/sbin/no", [][]string{image}, []string{"nex-init: the root file system has no program /sbin/no"}},
		{"a disk that is damaged", "", [][]string{drive("x", filepath.Join(dir, Kernel), ",readonly=on")}, []string{"nex-init: mount /dev/vda at /lower as ext4"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var args []string
			for _, a := range c.args {
				args = append(args, a...)
			}
			console := strings.ReplaceAll(boot(t, dir, c.options, args...), "\r", "")
			for _, want := range c.want {
				if !strings.Contains(console, want) {
					t.Errorf("the console has no %q:\n%s", want, console)
				}
			}
		})
	}
	if out, err := exec.Command(nextest.Program(t, "debugfs"), "-R", "stat /changed/etc/written", disk).Output(); err != nil || !strings.Contains(string(out), "Inode:") {
		t.Errorf("what the guest wrote is not on its disk: %s (%v)", out, err)
	}
}
