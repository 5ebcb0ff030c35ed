//go:build !linux

package guestos

import (
	"context"
	"errors"
	"time"
)

// Main calls agent: guests are Linux.
func Main(agent func(context.Context, Agent) error) error {
	return agent(context.Background(), Agent{})
}

// Enter fails likewise.
func Enter() (string, error) { return "", errors.ErrUnsupported }

// PowerOff fails likewise.
func PowerOff() error { return errors.ErrUnsupported }

// SetClock does nothing.
func SetClock(time.Time) {}
