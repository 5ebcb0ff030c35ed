//go:build !linux

package firecracker

import (
	"context"
	"errors"

	"nex/internal/machine"
)

// Launch says that there is no Firecracker here.
func (l *Launcher) Launch(context.Context, string) (machine.Machine, error) {
	return nil, errors.New("microVMs of Firecracker run on Linux only")
}

// Sweep has nothing to do.
func Sweep(context.Context, string) error { return nil }
