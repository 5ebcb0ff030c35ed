//go:build !linux

package rootfs

import (
	"context"
	"time"

	"nex/internal/confine"
)

// unpack refuses: it is for build steps.
func (t *tree) unpack(context.Context, string) error { return confine.StepsRefused() }

// pack refuses: it is for build steps.
func (t *tree) pack(context.Context, string, time.Time) error { return confine.StepsRefused() }
