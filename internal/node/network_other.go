//go:build !linux

package node

import "context"

// sweepNetwork has nothing to do: machines have no networks here.
func (*state) sweepNetwork(context.Context, Config, string) error { return nil }
