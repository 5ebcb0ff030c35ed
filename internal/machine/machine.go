// Package machine boots the machines that run agents, and keeps a pool of
// booted ones whose agents have said hello. A machine is used for one tenant
// and then destroyed, never given back.
//
// A [Launcher] makes one kind of machine; Processes are those that share the
// host's kernel, with the OS sandbox or without. All types are safe for
// concurrent use. The package knows nothing of workloads or of NATS.
package machine

import (
	"context"
	"net"

	"nex"
	"nex/internal/cgroup"
)

// Launcher boots machines of one kind.
type Launcher interface {
	// Launch boots a machine with the given id. ctx bounds the launch, not
	// the machine's life. An error leaves nothing behind.
	Launch(ctx context.Context, id string) (Machine, error)
}

// Machine is something that runs one agent.
type Machine interface {
	ID() string
	// Link is the node's end of the guest link.
	Link() net.Conn
	// Gone is closed when the machine has ended, for whatever reason, and
	// nothing of it is left on the host.
	Gone() <-chan struct{}
	// Admit readies the machine for a service, once: what it uses is bounded, as
	// far as the host can (who asks has seen to it that it can, or does not mind),
	// and a machine that has a network reaches it from now on. Machines of
	// functions are never asked.
	Admit(r nex.Resources) error
	// Usage tells what the services of the machine use now.
	Usage() (nex.Usage, error)
	// Hits tells how often limits were met; zero where the host does not know.
	Hits() (cgroup.Hits, error)
	// Destroy ends the machine and returns when it is gone or ctx ends.
	// Idempotent.
	Destroy(ctx context.Context) error
}
