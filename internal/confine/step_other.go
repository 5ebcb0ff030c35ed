//go:build !linux

package confine

import (
	"context"
	"errors"
)

// StepsRefused says why no step can be run here.
func StepsRefused() error { return errors.New("it needs namespaces, which only Linux has") }

// Run refuses: a step is confined by what Linux has.
func (s Step) Run(context.Context) error { return StepsRefused() }

// BeStep does nothing.
func BeStep() error { return nil }
