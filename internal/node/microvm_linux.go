package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"nex"
	"nex/internal/cgroup"
	"nex/internal/config"
	"nex/internal/machine/firecracker"
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
	own := func() *microvm.Config { c := *base; return &c }
	var s *sandbox
	switch want {
	case nex.SandboxFirecracker:
		s, err = newFirecracker(ctx, cfg, state, own())
	case nex.SandboxQEMU:
		s, err = newQEMU(ctx, cfg, state, own())
	default:
		if s, err = newFirecracker(ctx, cfg, state, own()); err == nil {
			break
		}
		if !errors.Is(err, firecracker.ErrMissing) {
			cfg.Log.Warn("Firecracker does not work on this host, QEMU is tried", "error", err)
		}
		var second error
		if s, second = newQEMU(ctx, cfg, state, own()); second != nil {
			err = errors.Join(err, second)
		} else {
			err = nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("sandbox %q does not work on this host: %w; or %s", want, err, instead)
	}
	return s, nil
}

// microVMs is what machines are made of with either VMM.
func microVMs(cfg Config, state *state, groups *cgroup.Root) (c *microvm.Config, err error) {
	s := cfg.Settings
	c = &microvm.Config{
		CPUs: s.Template.VCPUs, MemoryMiB: s.Template.MemoryMiB, DiskMiB: s.Template.DiskMiB,
		Dir: state.machines(), Records: state.records(), Templates: state.disks(), Groups: groups, Log: cfg.Log,
	}
	c.Kernel, c.Initramfs, c.RootFS = s.Image(state.dir)
	for _, path := range []*string{&c.Kernel, &c.Initramfs, &c.RootFS, &c.Dir, &c.Records, &c.Templates} {
		if *path, err = filepath.Abs(*path); err != nil { // VMMs work in directories of their own
			return nil, err
		}
	}
	return c, c.Check()
}

func newQEMU(ctx context.Context, cfg Config, state *state, base *microvm.Config) (*sandbox, error) {
	program, version, err := qemu.Find(ctx, cfg.Settings.ProgramDirs(state.dir))
	if err != nil {
		return nil, err
	}
	if cfg.Settings.RateLimiters != (config.RateLimiters{}) {
		cfg.Log.Warn("rate_limiters has no effect: QEMU runs the machines, not Firecracker")
	}
	l := &qemu.Launcher{Config: base, Program: program}
	cause, err := l.Choose(ctx, qemu.Accel(cfg.Settings.QEMU.Accel))
	if err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 && !l.Apart() {
		cfg.Log.Warn("QEMU runs as root: without cgroups, or in a user namespace of few users, it has no user of its own; do not run code that nobody vouches for")
	}
	network, err := connectQEMU(ctx, cfg, state, l)
	if err != nil {
		return nil, err
	}
	made := &sandbox{
		launcher: l, kind: nex.SandboxQEMU, vmm: fmt.Sprintf("QEMU %s (%s)", version, l.Accel), limits: cgroup.Guest, hello: usualHello,
	}
	if l.Network != nil {
		made.network = l.Network
	}
	attributes := []any{"vmm", made.vmm, "network", network, "kernel", base.Kernel, "rootfs", base.RootFS}
	if l.Accel == qemu.TCG {
		made.hello = microvm.HelloUnderEmulation
	}
	if cause != nil {
		attributes = append(attributes, "no_kvm", cause.Error())
	}
	cfg.Log.Info("Workloads run in microVMs", attributes...)
	return made, nil
}

func newFirecracker(ctx context.Context, cfg Config, state *state, base *microvm.Config) (*sandbox, error) {
	s := cfg.Settings
	program, version, err := firecracker.Find(ctx, s.ProgramDirs(state.dir))
	if err != nil {
		return nil, err
	}
	limit := rateLimiter(s.RateLimiters)
	l := &firecracker.Launcher{
		Config: base, Firecracker: program, DriveLimit: limit, NetworkLimit: limit,
		Boot: cmp.Or(s.HandshakeTimeout, usualHello),
	}
	attributes := []any{"vmm", "Firecracker " + version, "kernel", base.Kernel, "rootfs", base.RootFS}
	switch {
	case os.Geteuid() == 0 && !s.Jailer.Off:
		l.Jail = &firecracker.Jail{UID: s.Jailer.UID, GID: s.Jailer.GID, ChrootBase: s.Jailer.ChrootBase, Cgroup: s.Jailer.Cgroup}
		if l.Jail.Jailer, err = firecracker.FindJailer(ctx, program, version, s.ProgramDirs(state.dir)); err != nil {
			return nil, err
		}
		if err := l.Jail.Check(base.Groups.Kind()); err != nil {
			return nil, err
		}
		attributes = append(attributes, "jailer", l.Jail.Jailer)
	default:
		cfg.Log.Warn("Firecracker runs without its jailer, as this user; the jailer takes root")
	}
	if os.Geteuid() != 0 {
		cfg.Log.Warn("Services have no network: that takes root")
	} else if base.Network, err = newTaps(ctx, cfg, state); err != nil {
		return nil, err
	}
	made := &sandbox{launcher: l, kind: nex.SandboxFirecracker, vmm: "Firecracker " + version, limits: cgroup.Guest, hello: usualHello}
	if base.Network != nil {
		made.network = base.Network
	}
	if err := l.Probe(ctx); err != nil {
		made.close()
		return nil, err
	}
	cfg.Log.Info("Workloads run in microVMs", attributes...)
	return made, nil
}

// rateLimiter is what the configuration says, nil for no bounds.
func rateLimiter(r config.RateLimiters) *firecracker.RateLimiter {
	if r == (config.RateLimiters{}) {
		return nil
	}
	bucket := func(b config.Bucket) *firecracker.TokenBucket {
		if b == (config.Bucket{}) {
			return nil
		}
		return &firecracker.TokenBucket{OneTimeBurst: int64(b.OneTimeBurst), RefillTime: int64(b.RefillTime), Size: int64(b.Size)}
	}
	return &firecracker.RateLimiter{Bandwidth: bucket(r.Bandwidth), Ops: bucket(r.IOPS)}
}
