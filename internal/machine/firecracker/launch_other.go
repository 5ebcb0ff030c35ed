//go:build !linux

package firecracker

import (
	"context"
	"errors"

	"nex/internal/machine"
)

// Launch says that there is no Firecracker here.
func (l *Launcher) Launch(context.Context, string) (machine.Machine, error) {
	return nil, errors.New("Firecracker runs on Linux only") //lint:ignore ST1005 a name
}

// Sweep has nothing to do.
func Sweep(context.Context, string) error { return nil }
