// Package qemu boots microVMs with QEMU: by the processor's own virtualization
// where the host has KVM, else by software emulation, which is slower and works
// everywhere. The guest link is a virtio-serial port, and QEMU is told what to do
// over QMP; both are sockets that it inherits, so that nobody else can have them.
// All types are safe for concurrent use.
package qemu

import (
	"fmt"

	"nex/internal/machine/microvm"
)

// Accel is how the processor of a machine comes about.
type Accel string

// The ways.
const (
	KVM  Accel = "kvm"  // the processor's own virtualization
	TCG  Accel = "tcg"  // software emulation
	Auto Accel = "auto" // KVM where it works, else TCG
)

// overheadMiB is what QEMU may have of the host's memory besides its guest's.
const overheadMiB = 160

// NetID is the id that QEMU knows its network by.
const NetID = "net"

// UserNet is a network of QEMU's own, for which nobody needs to be root: its guest
// reaches what Netdev says, and nothing of it while it is cut. QEMU starts
// programs that forward connections.
type UserNet struct {
	NIC       microvm.NIC
	Netdev    string // what goes after "-netdev ", with the id NetID
	Forwarder string // path of the program that Netdev calls [ForwarderPath]
}

// ForwarderPath is where QEMU finds the program that forwards connections: among
// what it inherits, so that a user who may not go where the program is can run it, and
// a machine goes on with the one it began with.
var ForwarderPath = fmt.Sprintf("/proc/self/fd/%d", netFD)

// Launcher boots microVMs with QEMU.
type Launcher struct {
	*microvm.Config
	Program string // qemu-system-x86_64
	Accel   Accel  // KVM or TCG; see [Launcher.Choose]
	// UserNet is the network of all machines, each of which has one of its own. Nil
	// for none, or where Config.Network is.
	UserNet *UserNet

	users microvm.Users
}
