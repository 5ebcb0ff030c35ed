// Package firecracker boots machines that are microVMs of Firecracker: one process of
// it each, told what to do over its API, and kept in a jail of Firecracker's own where
// the node is root. The guest's agent connects over vsock, to a socket that takes one
// connection.
//
// A [Launcher] is safe for concurrent use. The package makes no images and no
// networks; what a machine has outside of its directory it records there first
// (jail.json), and [Sweep] removes it after the node was killed. Snapshots are not
// taken.
package firecracker

import (
	"log/slog"
	"sync"
	"time"

	"nex/internal/cgroup"
)

// The default sizes of a machine.
const (
	defaultCPUs      = 1
	defaultMemoryMiB = 256
)

// Image is what a machine boots: paths of files that all machines share and none
// changes.
type Image struct {
	Kernel    string // an ELF file
	Initramfs string // "" for none
	RootFS    string // ext4
}

// NIC is a network interface that was made for a machine.
type NIC struct {
	NetNS string // path of the network namespace that the tap is in, "" for the node's
	Tap   string // name of the tap
	MAC   string // of the guest's side
	Args  string // what the kernel's command line says of it
	// Admit opens the network to the guest; before, it is cut.
	Admit func() error
	// Remove removes it, and is called once when no process uses it.
	Remove func() error
}

// Jail says how the jailer confines a machine.
type Jail struct {
	Jailer string // path of the program, of the same version as Firecracker
	UID    int    // the user that Firecracker runs as; 0 for another one per machine
	GID    int    // and the group, likewise
	// ChrootBase is the directory that root directories are made in; "" for the
	// machine's own.
	ChrootBase string
	// Cgroup are settings of cgroups that the jailer makes, as in "cpuset.cpus=0-3",
	// besides what the node itself sets.
	Cgroup []string
}

// Launcher boots machines. Set the fields before use.
type Launcher struct {
	Firecracker string // path of the program; see [Version]
	Jail        *Jail  // nil for none
	Dir         string // holds a directory per machine
	Image       Image
	CPUs        int // 1 to 32; 0 for 1
	MemoryMiB   int // 0 for 256
	// Disk makes the machine's own disk, a file that is not there yet.
	Disk func(path string) error
	// NIC makes the network interface of a machine, and records in dir what of it is
	// elsewhere. Nil for machines without a network.
	NIC func(id, dir string) (*NIC, error)
	// DriveLimit bounds the machine's own disk, and NetworkLimit each direction of its
	// network. Nil for no bounds.
	DriveLimit, NetworkLimit *RateLimiter
	// Boot bounds how long a guest may take to connect.
	Boot time.Duration
	// Groups is where each machine gets a cgroup of its own; nil for none.
	Groups *cgroup.Root
	Log    *slog.Logger

	mu    sync.Mutex
	users map[int]bool // of machines that there are now
}
