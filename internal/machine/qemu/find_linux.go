package qemu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/rs/xid"

	"nex/internal/guest"
)

// name is QEMU's for the only processor that it has the kind of machine for.
const name = "qemu-system-x86_64"

// Find finds QEMU in directories, before those of PATH, and its version.
func Find(ctx context.Context, dirs []string) (program, version string, err error) {
	if runtime.GOARCH != "amd64" {
		return "", "", fmt.Errorf("QEMU has microVMs for amd64 alone, this host is %s", runtime.GOARCH)
	}
	for _, dir := range append(dirs, "") {
		program, err = exec.LookPath(filepath.Join(dir, name))
		if err == nil {
			break
		}
	}
	if err != nil {
		return "", "", fmt.Errorf("%s is neither in bin_path nor in PATH: install the package qemu-system-x86", name)
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return "", "", fmt.Errorf("ask %s for its version: %w", program, err)
	}
	version, ok := parseVersion(string(out))
	if !ok {
		return "", "", fmt.Errorf("%s does not tell its version: %.100q", program, out)
	}
	return program, version, nil
}

// parseVersion reads "QEMU emulator version 7.2.22 (Debian …)".
func parseVersion(text string) (version string, ok bool) {
	_, rest, ok := strings.Cut(text, "QEMU emulator version ")
	words := strings.Fields(rest)
	if !ok || len(words) == 0 {
		return "", false
	}
	return words[0], true
}

// probeTimeout bounds a boot that finds out whether KVM works: with it one takes
// a fraction of a second.
const probeTimeout = 5 * time.Second

// Choose sets Accel to what is wanted. With Auto that is KVM where it works; where
// it does not, why is the cause. It is called before any machine is launched.
func (l *Launcher) Choose(ctx context.Context, want Accel) (cause, err error) {
	if want == TCG {
		l.Accel = TCG
		return nil, nil
	}
	l.Accel = KVM
	err = l.tryKVM(ctx)
	if err == nil || want == KVM {
		return nil, err
	}
	l.Accel = TCG
	return err, nil
}

// Where the kernel tells of KVM: its device, and a module with which it only seems
// to work.
const (
	kvmDevice = "/dev/kvm"
	kvmPVM    = "/sys/module/kvm_pvm"
)

func (l *Launcher) tryKVM(ctx context.Context) error {
	f, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("KVM cannot be used: %w", err)
	}
	_ = f.Close() // nothing was written
	if _, err := os.Stat(kvmPVM); !errors.Is(err, fs.ErrNotExist) {
		return errors.New("KVM is kvm_pvm, which does not run kernels of guests as they are")
	}
	if err := l.probe(ctx); err != nil {
		return fmt.Errorf("no guest boots with KVM: %w", err)
	}
	return nil
}

// probe boots a guest until its agent says hello.
func (l *Launcher) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	m, err := l.launch(ctx, xid.New().String())
	if err != nil {
		return err
	}
	client, err := guest.Greet(ctx, m.Link())
	if err == nil {
		client.Close()
	} else if said := m.LastLine(); said != "" {
		err = fmt.Errorf("%w (on its console: %s)", err, said)
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), commandTimeout)
	defer cancel()
	return errors.Join(err, m.Destroy(ctx))
}
