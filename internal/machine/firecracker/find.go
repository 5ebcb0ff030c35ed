package firecracker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"nex/internal/machine/microvm"
)

// ErrMissing is the error of [Find] where there is no Firecracker at all.
var ErrMissing = errors.New("there is no firecracker, neither in bin_path nor in PATH: install a release of " + Supported + " with its jailer")

// Find finds Firecracker in directories, and its version, which is one that the
// driver was made for. The program is returned with an error about its version, too.
func Find(ctx context.Context, dirs []string) (program, version string, err error) {
	if program = microvm.FindProgram("firecracker", dirs); program == "" {
		return "", "", ErrMissing
	}
	version, err = Version(ctx, program)
	return program, version, err
}

// ErrNoJailer is the error of [FindJailer] where there is no jailer at all.
var ErrNoJailer = errors.New(`there is no jailer, which comes with Firecracker: install it beside it, or set "jailer": {"enabled": false} to have Firecracker run as root`)

// FindJailer finds the jailer that belongs to a Firecracker: of the same version,
// beside it, or else in directories. The program is returned with an error about it, too.
func FindJailer(ctx context.Context, firecracker, version string, dirs []string) (program string, err error) {
	if program = microvm.FindProgram("jailer", append([]string{filepath.Dir(firecracker)}, dirs...)); program == "" {
		return "", ErrNoJailer
	}
	if _, err := jailName(firecracker); err != nil {
		return program, err
	}
	output, err := microvm.AskVersion(ctx, program)
	if err != nil {
		return program, err
	}
	if line, _, _ := strings.Cut(output, "\n"); !strings.HasPrefix(line+" ", "Jailer v"+version+" ") && !strings.HasPrefix(line, "Jailer v"+version+"-") {
		return program, fmt.Errorf("%s is not of the version %s that %s is of: it says %.80q", program, version, firecracker, line)
	}
	return program, nil
}

// jailName is what the jailer calls the directories of a Firecracker. It follows links.
func jailName(firecracker string) (string, error) {
	path, err := filepath.EvalSymlinks(firecracker)
	if err != nil {
		return "", err
	}
	name := filepath.Base(path)
	if !strings.Contains(name, "firecracker") {
		return "", fmt.Errorf("the jailer runs no program but firecracker, and %s is called otherwise", path)
	}
	return name, nil
}
