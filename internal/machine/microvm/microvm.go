// Package microvm is what the drivers of microVMs share: what a machine boots and
// is given, its command line and its own disk, the control group around its VMM,
// its console in the node's log, and how it is readied for a service.
//
// A driver calls [Config.Begin], starts its VMM with [Draft.Start], and has a
// [Machine]. All types but Draft are safe for concurrent use. The package knows no
// VMM, and what is inside of a machine only as far as its command line tells it.
package microvm

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"nex/internal/cgroup"
)

// HelloUnderEmulation is how long an agent may take to say hello where the
// processor of its machine is emulated, if nobody says.
const HelloUnderEmulation = time.Minute

// Config says what machines are made of. It does not change once it is used.
type Config struct {
	Kernel, Initramfs, RootFS string // files of the image; RootFS is only read, by all machines

	CPUs      int // virtual processors, at least 1
	MemoryMiB int // memory of the guest
	DiskMiB   int // size of each machine's own disk, which takes what is written to it

	Dir       string       // where the directories of machines are
	Records   string       // where it is recorded what machines have elsewhere, out of their reach
	Templates string       // where empty disks are kept, one of each size, to be copied
	Groups    *cgroup.Root // nil for none
	Network   Network      // nil for none
	Log       *slog.Logger
}

// Network connects machines. Whatever it makes it records first, in the directory
// that is given for that, so that it is found after a crash.
type Network interface {
	// Attach makes the network of a machine with the given id, whose records are in a
	// directory, and keeps it cut. An error leaves nothing behind.
	Attach(ctx context.Context, id, records string) (*NIC, error)
	// Enable lets a machine reach what its node allows.
	Enable(id string) error
	// Detach removes what Attach made, after the machine has ended. It is no error if
	// there is nothing.
	Detach(ctx context.Context, id, records string) error
	// Close ends what the node does for the networks of machines, which stay as they
	// are.
	Close() error
}

// NIC is the network card of a machine.
type NIC struct {
	NetNS       string // path of the network namespace that Tap is in; "" for the node's own
	Tap         string // name of the host's end
	MAC         net.HardwareAddr
	Addr        netip.Prefix // the guest's address in its network
	Gateway     netip.Addr
	Nameservers []netip.Addr
	DNSOverTCP  bool // the name servers answer over TCP only
}
