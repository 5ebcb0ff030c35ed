//go:build !linux

package node

import (
	"context"

	"nex"
	"nex/internal/cgroup"
)

// newMicroVMs tells that there are none here.
func newMicroVMs(_ context.Context, cfg Config, _ *state, _ *cgroup.Root) (*sandbox, error) {
	return nil, nex.Errorf(nex.Unsupported, "sandbox %q is for Linux: %s", cfg.Settings.Sandbox, instead)
}
