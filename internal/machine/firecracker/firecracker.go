// Package firecracker boots machines that are microVMs of Firecracker: one process of
// it each, told what to do over its API, and kept in a jail of Firecracker's own where
// the node is root. The guest's agent connects over vsock, to a socket that takes one
// connection.
//
// A [Launcher] is safe for concurrent use. The package makes no images and no
// networks; what its machines have outside of their directories it records first
// (jail.json), and [Sweep] removes it after the node was killed. Snapshots are not
// taken.
package firecracker

import (
	"time"

	"nex/internal/machine/microvm"
)

// Launcher boots machines. Set the fields before use.
type Launcher struct {
	*microvm.Config

	Firecracker string // path of the program; see [Version]
	Jail        *Jail  // nil for none
	// DriveLimit bounds the machine's own disk, and NetworkLimit each direction of its
	// network. Nil for no bounds.
	DriveLimit, NetworkLimit *RateLimiter
	// Boot bounds how long a guest's agent may take to connect, from the start of its kernel.
	Boot time.Duration

	users microvm.Users
}

// Jail says how Firecracker's jailer confines a machine. It takes root.
type Jail struct {
	Jailer string // path of the program, of the same version as Firecracker
	UID    int    // the user that Firecracker runs as; 0 for another one per machine
	GID    int    // and the group, likewise
	// ChrootBase is the directory that root directories are made in; "" for the
	// machine's own.
	ChrootBase string
	// Cgroup are settings of cgroups that the jailer makes, as in "cpuset.cpus=0-3".
	// See [Jail.Check].
	Cgroup []string
}
