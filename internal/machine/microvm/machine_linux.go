package microvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"nex"
	"nex/internal/cgroup"
	"nex/internal/machine"
	"nex/internal/undo"
)

const (
	// endOfGroup bounds how long the processes of a machine may take to be gone
	// after they were killed, and endOfNetwork how long its network.
	endOfGroup, endOfNetwork = 5 * time.Second, 10 * time.Second
	// threads is how many threads and processes a VMM may have besides its virtual
	// processors.
	threads = 128
)

// diskName is the name of a machine's own disk in its directory.
const diskName = "disk.ext4"

// Draft is a machine whose VMM has not been started. It belongs to one goroutine.
type Draft struct {
	ID, Dir string
	Records string // the directory for what is recorded of the machine
	Disk    string // the machine's own, /dev/vdb of the guest
	NIC     *NIC   // nil for none
	Log     *slog.Logger

	cfg   *Config
	group *cgroup.Group // nil for none
	undo  undo.Stack
}

// Begin makes what a machine has of its own: directory, disk, control group,
// network. The caller must call [Draft.Abandon], also after [Draft.Start]. An
// error leaves nothing behind.
func (c *Config) Begin(ctx context.Context, id string) (*Draft, error) {
	d := &Draft{ID: id, Dir: filepath.Join(c.Dir, id), Log: c.Log.With("machine", id), cfg: c}
	d.Disk, d.Records = filepath.Join(d.Dir, diskName), filepath.Join(c.Records, id)
	if err := d.begin(ctx); err != nil {
		d.Abandon()
		return nil, err
	}
	return d, nil
}

func (d *Draft) begin(ctx context.Context) error {
	if err := os.Mkdir(d.Dir, 0o700); err != nil {
		return fmt.Errorf("make machine directory: %w", err)
	}
	d.undo.Push(func() { _ = os.RemoveAll(d.Dir) }) // the launch's own error is the one to report
	d.undo.Push(func() {
		if err := d.end(nil); err != nil {
			d.Log.Error("What is left of a machine that did not start cannot be ended now: it is tried again when the node starts", "error", err)
		}
	})
	if err := os.MkdirAll(d.Records, 0o700); err != nil {
		return fmt.Errorf("make directory for records of the machine: %w", err)
	}
	if err := d.cfg.makeDisk(ctx, d.Disk); err != nil {
		return fmt.Errorf("make machine's disk: %w", err)
	}
	if d.cfg.Groups != nil {
		group, err := d.cfg.Groups.Make(d.ID)
		if err != nil {
			return err
		}
		d.group = group
	}
	if d.cfg.Network != nil {
		nic, err := d.cfg.Network.Attach(ctx, d.ID, d.Records)
		if err != nil {
			return fmt.Errorf("attach machine to its network: %w", err)
		}
		d.NIC = nic
	}
	return nil
}

// end ends and removes what the machine has outside of its directory: first all
// processes, then what they used, of which the driver's own is more.
func (d *Draft) end(more func() error) error {
	var errs []error
	if d.group != nil {
		ctx, cancel := context.WithTimeout(context.Background(), endOfGroup)
		defer cancel()
		if err := d.group.Kill(ctx); err != nil {
			return err // it may still use its network
		}
	}
	if more != nil {
		errs = append(errs, more())
	}
	if d.group != nil {
		ctx, cancel := context.WithTimeout(context.Background(), endOfGroup)
		defer cancel()
		errs = append(errs, d.group.Remove(ctx))
	}
	if d.NIC != nil {
		ctx, cancel := context.WithTimeout(context.Background(), endOfNetwork)
		defer cancel()
		errs = append(errs, d.cfg.Network.Detach(ctx, d.ID, d.Records))
	}
	_ = os.Remove(d.Records) // unless something is recorded there still
	return errors.Join(errs...)
}

// Abandon removes everything of a machine whose VMM was not started.
func (d *Draft) Abandon() { d.undo.Unwind() }

// VMM is the program around a machine.
type VMM struct {
	Cmd         *exec.Cmd // not started, with all but its session and its outputs
	OverheadMiB int       // what it may have of the host's memory besides the guest's
	// Prepare is [machine.ChildConfig.Prepare]. May be nil.
	Prepare func(*exec.Cmd) (release func(), err error)
	// Admit lets the guest reach its network, where that is the driver's own. May be
	// nil.
	Admit func() error
	// Placed is told the VMM's process when it has started and before it has done
	// anything; on the goroutine that calls End. Its error is the start's. May be nil.
	Placed func(pid int) error
	// End is done when all processes of the VMM have ended, before the rest is
	// removed. May be nil.
	End func() error
}

// Start starts the VMM, in the control group and with the limits that go for all
// of it. From then on the draft is the machine's; after an error the caller undoes
// what v.End would.
func (d *Draft) Start(v VMM) (*Machine, error) {
	if d.group != nil {
		r := nex.Resources{MemoryMiB: d.cfg.MemoryMiB + v.OverheadMiB, PIDs: d.cfg.CPUs + threads}
		if err := d.group.Limit(r); err != nil {
			return nil, err
		}
	}
	output := &console{log: d.Log}
	child, err := machine.StartChild(machine.ChildConfig{
		ID: d.ID, Cmd: v.Cmd, Dir: d.Dir, Log: d.Log, Prepare: v.Prepare, Relay: output.relay,
		Place: func(pid int) error {
			if v.Placed != nil {
				if err := v.Placed(pid); err != nil {
					return err
				}
			}
			if d.group == nil {
				return nil
			}
			return d.group.AddLimited(pid)
		},
		End: func() error { return d.end(v.End) },
	})
	if err != nil {
		return nil, fmt.Errorf("start VMM: %w", err)
	}
	d.undo.Keep()
	return &Machine{Child: child, cfg: d.cfg, group: d.group, nic: d.NIC, admit: v.Admit, console: output}, nil
}

// Machine is a microVM. What it adds to a [machine.Child] makes it a
// [machine.Machine].
type Machine struct {
	*machine.Child
	cfg   *Config
	group *cgroup.Group // nil for none
	nic   *NIC          // nil for none
	admit func() error  // may be nil
	link  net.Conn

	console *console
}

var _ machine.Machine = (*Machine)(nil)

// Connect sets the node's end of the guest link, once, before anybody else has the
// machine. Destroy closes it.
func (m *Machine) Connect(link net.Conn) { m.link = link }

// LastLine is the last that the VMM printed, or its guest on the console, but for
// the reason why its kernel panicked: often that of its end. After Gone it is the
// last of all.
func (m *Machine) LastLine() string { return m.console.lastLine() }

// Link is the node's end of the guest link.
func (m *Machine) Link() net.Conn { return m.link }

// Admit readies the machine for a service: the processors of the host that the
// VMM may keep busy, and the network. What asks for more than there is in the
// machine is refused.
func (m *Machine) Admit(r nex.Resources) error {
	if r.MemoryMiB > m.cfg.MemoryMiB {
		return nex.Errorf(nex.Exhausted, "the service asks for %d MiB of memory (resources.memory_mib), a machine of this node has %d MiB (machine_template.memsize_mib)", r.MemoryMiB, m.cfg.MemoryMiB)
	}
	if r.DiskMiB > m.cfg.DiskMiB {
		return nex.Errorf(nex.Exhausted, "the service asks for %d MiB of disk (resources.disk_mib), a machine of this node has %d MiB (machine_template.disk_mib)", r.DiskMiB, m.cfg.DiskMiB)
	}
	if m.group != nil && r.CPUs > 0 {
		if err := m.group.Limit(nex.Resources{CPUs: r.CPUs}); err != nil {
			return err
		}
	}
	if m.admit != nil {
		if err := m.admit(); err != nil {
			return fmt.Errorf("let the machine reach its network: %w", err)
		}
	}
	if m.nic == nil {
		return nil
	}
	if err := m.cfg.Network.Enable(m.ID()); err != nil {
		return fmt.Errorf("let the machine reach its network: %w", err)
	}
	return nil
}

// Usage tells what the VMM uses, the guest's memory among it.
func (m *Machine) Usage() (nex.Usage, error) {
	if m.group == nil {
		return m.SessionUsage()
	}
	return m.group.Usage()
}

// Hits tells how often limits of the VMM were met.
func (m *Machine) Hits() (cgroup.Hits, error) {
	if m.group == nil {
		return cgroup.Hits{}, nil
	}
	return m.group.Hits()
}

// Destroy kills the VMM.
func (m *Machine) Destroy(ctx context.Context) error {
	return m.Kill(ctx, func() {
		if m.link != nil {
			_ = m.link.Close()
		}
	})
}
