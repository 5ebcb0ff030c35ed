//go:build !linux

package agent

import (
	"context"
	"errors"
	"net"
)

// MachineLink fails: guests are Linux.
func MachineLink(context.Context) (net.Conn, error) { return nil, errors.ErrUnsupported }
