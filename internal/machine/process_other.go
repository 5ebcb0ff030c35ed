//go:build !unix

package machine

import (
	"context"

	"nex"
)

// Launch refuses: agents are started over a socket pair, which this system
// does not have.
func (p *Processes) Launch(context.Context, string) (Machine, error) {
	return nil, nex.Errorf(nex.Unsupported, "nodes do not run on this operating system yet; use nex as a client here")
}
