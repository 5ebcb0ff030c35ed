//go:build !linux

package machine

import (
	"context"

	"nex"
)

// Probe refuses: the OS sandbox is made of what Linux has.
func (p *Processes) Probe(context.Context) (missing []string, err error) {
	return nil, nex.Errorf(nex.Unsupported, `sandbox "os" needs Linux: use another sandbox`)
}
