package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"nex/internal/machine"
	"nex/internal/machine/microvm"
	"nex/internal/undo"
	"nex/internal/vmnet"
)

// startTimeout bounds how long QEMU may take to be there, on a busy host.
const startTimeout = 20 * time.Second

// commandTimeout bounds how long QEMU may take for a command that it is given
// where nobody else says.
const commandTimeout = 5 * time.Second

// Machine is a microVM of QEMU.
type Machine struct {
	*microvm.Machine
	monitor *monitor
}

var (
	_ machine.Launcher = (*Launcher)(nil)
	_ machine.Machine  = (*Machine)(nil)
)

// Launch starts QEMU, whose guest then boots.
func (l *Launcher) Launch(ctx context.Context, id string) (machine.Machine, error) {
	m, err := l.launch(ctx, id)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (l *Launcher) launch(ctx context.Context, id string) (*Machine, error) {
	draft, err := l.Begin(ctx, id)
	if err != nil {
		return nil, err
	}
	defer draft.Abandon()
	var u undo.Stack
	defer u.Unwind()
	link, qmp, inherited, err := ends(&u)
	defer closeAll(&inherited)
	if err != nil {
		return nil, err
	}
	nic := draft.NIC
	if l.UserNet != nil {
		nic = &l.UserNet.NIC
		forwarder, err := os.Open(l.UserNet.Forwarder)
		if err != nil {
			return nil, fmt.Errorf("open network of machine: %w", err)
		}
		inherited = append(inherited, forwarder)
	} else if nic != nil {
		tap, err := vmnet.OpenTap(&vmnet.NIC{NetNS: nic.NetNS, Tap: nic.Tap}, true)
		if err != nil {
			return nil, fmt.Errorf("open network of machine: %w", err)
		}
		inherited = append(inherited, tap)
	}
	vmm, user := microvm.VMM{OverheadMiB: overheadMiB}, 0
	if l.Apart() {
		user = l.users.Take(id)
		u.Push(func() { l.users.Return(user) })
		if l.UserNet == nil { // QEMU's own network needs the host's
			vmm.Prepare = isolate
		}
		vmm.End = func() error { l.users.Return(user); return nil }
	}
	args, err := l.arguments(id, draft.Disk, nic, user)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(l.Program, args...)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = draft.Dir, []string{"TMPDIR=" + draft.Dir}, inherited
	m := &Machine{}
	vmm.Cmd = cmd
	if l.UserNet != nil {
		vmm.Admit = func() error { return m.reach(true) }
	}
	if m.Machine, err = draft.Start(vmm); err != nil {
		return nil, err
	}
	closeAll(&inherited) // so that what QEMU alone holds ends with it
	m.Connect(link)
	u.Keep()
	if err := m.begin(ctx, qmp, l.UserNet != nil); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandTimeout)
		defer cancel()
		err = errors.Join(err, m.Destroy(ctx))
		if said := m.LastLine(); said != "" {
			err = fmt.Errorf("%w: %s", err, said)
		}
		return nil, err
	}
	return m, nil
}

// Apart reports whether each QEMU has a user of its own. That takes root, and control
// groups, since a process that changed its user does not end with the node that is
// killed.
func (l *Launcher) Apart() bool { return l.Groups != nil && microvm.MayUseUsers() }

// isolate has QEMU start in a network namespace of its own, with nothing in it.
func isolate(cmd *exec.Cmd) (release func(), err error) {
	cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWNET
	return func() {}, nil
}

// begin waits until QEMU takes commands. What was started with a network has
// waited for that to be cut.
func (m *Machine) begin(ctx context.Context, qmp net.Conn, cut bool) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if m.monitor, err = newMonitor(ctx, qmp); err != nil {
		return fmt.Errorf("start QEMU: %w", err)
	}
	if !cut {
		return nil
	}
	if err := m.reach(false); err != nil {
		return err
	}
	return m.Resume(ctx)
}

// ends makes the sockets of the guest link and of the monitor. The ends that
// QEMU inherits are in the order of their descriptors.
func ends(u *undo.Stack) (link, qmp net.Conn, inherited []*os.File, err error) {
	for _, near := range []*net.Conn{&link, &qmp} {
		conn, far, err := machine.SocketPair()
		if err != nil {
			return nil, nil, inherited, fmt.Errorf("make guest link: %w", err)
		}
		u.Push(func() { _ = conn.Close() })
		*near, inherited = conn, append(inherited, far)
	}
	return link, qmp, inherited, nil
}

func closeAll(files *[]*os.File) {
	for _, f := range *files {
		_ = f.Close() // nothing was written
	}
	*files = nil
}

// reach lets the guest reach QEMU's own network, or cuts it.
func (m *Machine) reach(up bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	return m.monitor.execute(ctx, "set_link", map[string]any{"name": NetID, "up": up})
}

// Pause stops the machine's processors until [Machine.Resume]. Its clock does not
// stop for that.
func (m *Machine) Pause(ctx context.Context) error { return m.monitor.execute(ctx, "stop", nil) }

// Resume undoes [Machine.Pause].
func (m *Machine) Resume(ctx context.Context) error { return m.monitor.execute(ctx, "cont", nil) }
