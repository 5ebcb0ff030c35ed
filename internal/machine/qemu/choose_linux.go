package qemu

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/xid"

	"nex/internal/guest"
	"nex/internal/machine/microvm"
)

// probeTimeout bounds a boot that finds out whether KVM works: with it one takes
// a fraction of a second.
const probeTimeout = 5 * time.Second

// Choose sets Accel to what is wanted. With Auto that is KVM where it works; where
// it does not, why is the cause. It is called before any machine is launched.
func (l *Launcher) Choose(ctx context.Context, want Accel) (cause, err error) {
	if want == TCG {
		l.Accel = TCG
		return nil, nil
	}
	l.Accel = KVM
	err = l.tryKVM(ctx)
	if err == nil || want == KVM {
		return nil, err
	}
	l.Accel = TCG
	return err, nil
}

func (l *Launcher) tryKVM(ctx context.Context) error {
	if err := microvm.KVM(); err != nil {
		return fmt.Errorf("KVM cannot be used: %w", err)
	}
	if err := l.probe(ctx); err != nil {
		return fmt.Errorf("no guest boots with KVM: %w", err)
	}
	return nil
}

// probe boots a guest until its agent says hello.
func (l *Launcher) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	m, err := l.launch(ctx, xid.New().String())
	if err != nil {
		return err
	}
	client, err := guest.Greet(ctx, m.Link())
	if err == nil {
		client.Close()
	} else if said := m.LastLine(); said != "" {
		err = fmt.Errorf("%w (on its console: %s)", err, said)
	}
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), commandTimeout)
	defer cancel()
	return errors.Join(err, m.Destroy(ctx))
}
