package firecracker

import (
	"context"
	"errors"
	"fmt"

	"github.com/rs/xid"

	"nex/internal/guest"
	"nex/internal/machine"
)

// Probe boots a machine and ends it, and returns what is wrong if that does not
// work: KVM, the jailer, the image.
func (l *Launcher) Probe(ctx context.Context) error {
	m, err := l.Launch(ctx, "probe-"+xid.New().String())
	if err != nil {
		return fmt.Errorf("boot a machine: %w", err)
	}
	hello, cancel := context.WithTimeout(ctx, l.Boot)
	defer cancel()
	c, err := guest.Greet(hello, m.Link())
	if err != nil {
		err = fmt.Errorf("greet the agent of a machine: %w", err)
	} else {
		c.Close()
	}
	return errors.Join(err, end(ctx, m))
}

// end ends a machine, also where the context has ended.
func end(ctx context.Context, m machine.Machine) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	return m.Destroy(ctx)
}
