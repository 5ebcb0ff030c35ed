package node

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"

	"nex"
	"nex/internal/cgroup"
	"nex/internal/image"
	"nex/internal/machine/microvm"
	"nex/internal/machine/qemu"
)

// newMicroVMs makes machines that are microVMs: of the configured kind, or with
// "microvm" of the first that works here.
func newMicroVMs(ctx context.Context, cfg Config, state *state, groups *cgroup.Root) (*sandbox, error) {
	want := cfg.Settings.Sandbox
	base, err := microVMs(cfg, state, groups)
	if err != nil {
		return nil, fmt.Errorf("sandbox %q does not work: %w; make what microVMs boot with nex image build, or name its directory in \"default_resource_dir\"; or %s", want, err, instead)
	}
	if want == nex.SandboxFirecracker {
		return nil, nex.Errorf(nex.Unsupported, "sandbox %q is not available in this build: set \"sandbox\": \"qemu\", or %s", want, instead)
	}
	s, err := newQEMU(ctx, cfg, base)
	if err != nil {
		return nil, fmt.Errorf("sandbox %q does not work on this host: %w; or %s", want, err, instead)
	}
	return s, nil
}

// microVMs is what machines are made of with either VMM.
func microVMs(cfg Config, state *state, groups *cgroup.Root) (c *microvm.Config, err error) {
	s := cfg.Settings
	dir := s.ResourceDir
	if dir == "" {
		dir = image.Open(state.images()).Dir(image.DefaultName)
	}
	c = &microvm.Config{
		Kernel:    cmp.Or(s.Kernel, filepath.Join(dir, image.Kernel)),
		Initramfs: cmp.Or(s.Initramfs, filepath.Join(dir, image.Initramfs)),
		RootFS:    cmp.Or(s.RootFS, filepath.Join(dir, image.Rootfs)),
		CPUs:      s.Template.VCPUs, MemoryMiB: s.Template.MemoryMiB, DiskMiB: s.Template.DiskMiB,
		Dir: state.machines(), Templates: state.disks(), Groups: groups, Log: cfg.Log,
	}
	for _, path := range []*string{&c.Kernel, &c.Initramfs, &c.RootFS, &c.Dir, &c.Templates} {
		if *path, err = filepath.Abs(*path); err != nil { // VMMs work in directories of their own
			return nil, err
		}
	}
	return c, c.Check()
}

func newQEMU(ctx context.Context, cfg Config, base *microvm.Config) (*sandbox, error) {
	program, version, err := qemu.Find(ctx, cfg.Settings.BinPath)
	if err != nil {
		return nil, err
	}
	l := &qemu.Launcher{Config: base, Program: program}
	cause, err := l.Choose(ctx, qemu.Accel(cfg.Settings.QEMU.Accel))
	if err != nil {
		return nil, err
	}
	made := &sandbox{
		launcher: l, kind: nex.SandboxQEMU, vmm: fmt.Sprintf("QEMU %s (%s)", version, l.Accel), limits: cgroup.Guest, hello: usualHello,
	}
	attributes := []any{"vmm", made.vmm, "kernel", base.Kernel, "rootfs", base.RootFS}
	if l.Accel == qemu.TCG {
		made.hello = microvm.HelloUnderEmulation
	}
	if cause != nil {
		attributes = append(attributes, "no_kvm", cause.Error())
	}
	cfg.Log.Info("Workloads run in microVMs", attributes...)
	return made, nil
}
