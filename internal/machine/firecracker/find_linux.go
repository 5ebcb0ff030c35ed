package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/rs/xid"

	"nex/internal/guest"
	"nex/internal/machine"
)

// ErrMissing is the error of [Find] where there is no Firecracker at all.
var ErrMissing = errors.New("there is no firecracker, neither in bin_path nor in PATH: install a release of 1.8 to 1.16 with its jailer")

// Find finds Firecracker in directories, before those of PATH, and its version, which is
// one that the driver was made for.
func Find(ctx context.Context, dirs []string) (program, version string, err error) {
	if program = find("firecracker", dirs); program == "" {
		return "", "", ErrMissing
	}
	version, err = Version(ctx, program)
	return program, version, err
}

// FindJailer finds the jailer that belongs to a Firecracker: of the same version,
// beside it, or else in directories and those of PATH.
func FindJailer(ctx context.Context, firecracker, version string, dirs []string) (string, error) {
	program := find("jailer", append([]string{filepath.Dir(firecracker)}, dirs...))
	if program == "" {
		return "", fmt.Errorf("there is no jailer beside %s, which comes with it: install it there, or set \"jailer\": {\"enabled\": false} to have Firecracker run as root", firecracker)
	}
	ctx, cancel := context.WithTimeout(ctx, askVersion)
	defer cancel()
	output, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", program, err)
	}
	if line, _, _ := strings.Cut(string(output), "\n"); !strings.HasPrefix(line+" ", "Jailer v"+version+" ") && !strings.HasPrefix(line, "Jailer v"+version+"-") {
		return "", fmt.Errorf("%s is not of the version %s that %s is of: it says %.80q", program, version, firecracker, line)
	}
	return program, nil
}

// find returns the absolute path of a program, "" for none.
func find(name string, dirs []string) string {
	for _, dir := range append(dirs[:len(dirs):len(dirs)], "") {
		path, err := exec.LookPath(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		if path, err = filepath.Abs(path); err == nil {
			return path
		}
	}
	return ""
}

// Probe boots a machine and ends it, and returns what is wrong if that does not
// work: KVM, the jailer, the image.
func (l *Launcher) Probe(ctx context.Context) error {
	m, err := l.Launch(ctx, "probe-"+xid.New().String())
	if err != nil {
		return fmt.Errorf("boot a machine: %w", err)
	}
	hello, cancel := context.WithTimeout(ctx, l.Boot)
	defer cancel()
	c, err := guest.Greet(hello, m.Link())
	if err != nil {
		err = fmt.Errorf("greet the agent of a machine: %w", err)
	} else {
		c.Close()
	}
	return errors.Join(err, end(ctx, m))
}

// end ends a machine, also where the context has ended.
func end(ctx context.Context, m machine.Machine) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	return m.Destroy(ctx)
}
