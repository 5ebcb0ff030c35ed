//go:build !unix

package machine

import "context"

// Launch starts an agent whose link is pipes: there are no socket pairs here.
func (p *Processes) Launch(ctx context.Context, id string) (Machine, error) {
	return Piped{p}.Launch(ctx, id)
}
