//go:build !linux

package vmnet

import (
	"context"
	"errors"
	"fmt"
	"runtime"
)

// Network is the network of a node's machines, which other systems than Linux do
// not have.
type Network struct{}

// New says that there is none.
func New(context.Context, Config) (*Network, error) {
	return nil, fmt.Errorf("network of machines on %s: %w (it is made of taps and nftables of Linux)", runtime.GOOS, errors.ErrUnsupported)
}

func (n *Network) Attach(context.Context, string, string) (*NIC, error) {
	return nil, errors.ErrUnsupported
}
func (n *Network) Enable(context.Context, string) error         { return errors.ErrUnsupported }
func (n *Network) Detach(context.Context, string, string) error { return errors.ErrUnsupported }
func (n *Network) Close() error                                 { return nil }
