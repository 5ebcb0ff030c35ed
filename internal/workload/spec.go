// Package workload takes workloads from request to rest: it fetches their
// artifacts, runs them on guests, answers their triggers, and starts them
// again when they or their guest are lost.
//
// A [Manager] owns all workloads of a node. Each workload has one loop that
// alone decides what happens to it. All methods are safe for concurrent use.
// The package decides nothing about who may deploy what, and does not know
// what kind of machine a guest is.
package workload

import (
	"context"
	"io"
	"log/slog"
	"time"

	"nex"
	"nex/internal/artifact"
	"nex/internal/guest"
)

// Spec is what was asked for, checked and complete. It does not change.
type Spec struct {
	Namespace   string
	Name        string
	Description string
	Type        nex.WorkloadType
	Claims      nex.Claims // of the deploy request
	Artifact    artifact.Ref
	File        string // the artifact's name in error texts
	Argv        []string
	Environment map[string]string // in clear: never print it
	Triggers    []string
	// TriggerAccess is where the triggers are, nil for the node's own
	// connection. It stays on the node.
	TriggerAccess *nex.NATSAccess
	// HostAccess is the NATS behind the workload's host services, nil for what
	// the node says. It stays on the node too.
	HostAccess *nex.NATSAccess
	Static     bool         // refuse dynamically linked executables
	Settings   nex.Settings // complete
}

// Guest is a booted machine for one tenant.
type Guest interface {
	Deploy(ctx context.Context, d guest.Deploy, artifact io.Reader, sink guest.Sink) error
	// Invoke does not wait; see [guest.Client.Invoke].
	Invoke(t guest.Trigger, due time.Time, hurry bool, done func(guest.Result, error))
	Undeploy(ctx context.Context, id string) error
	// Probe asks a service on the guest's own network; see [guest.Client.Probe].
	Probe(ctx context.Context, p guest.Probe) error
	// Usage tells what the guest uses now.
	Usage() (nex.Usage, error)
	// Done is closed when the guest is lost or released: it takes no calls.
	Done() <-chan struct{}
	// Release ends the guest and returns when it is gone.
	Release()
}

// Guests hands out guests, each to one taker.
type Guests interface {
	Take(ctx context.Context) (Guest, error)
}

// Host answers what the code of one workload asks of host services.
type Host interface {
	// Serve answers one call. It ends when ctx does.
	Serve(ctx context.Context, c guest.HostCall) (guest.Message, error)
	// Answers asks a subject, or a micro service there, for a sign of life. The
	// error says why there was none.
	Answers(ctx context.Context, r nex.Ready) error
	// Refused counts the calls that policy or limits refused.
	Refused() int64
	// Close ends the calls under way; there are none afterwards.
	Close()
}

// Artifacts fetches what workloads are made of.
type Artifacts interface {
	Fetch(ctx context.Context, r artifact.Ref, allow func(size int64) error) (artifact.Artifact, error)
	Find(sha256 string) (artifact.Artifact, bool)
}

// Reporter publishes what happens to workloads. Its methods do not block for
// long.
type Reporter interface {
	// Event reports a fact about a workload's life.
	Event(namespace, id string, e nex.EventData)
	// Called reports one function call. Under overload some may be lost,
	// never the call itself.
	Called(c Call)
	// Log passes on what a workload printed.
	Log(s nex.LogSubject, level slog.Level, text string)
}

// Journal keeps what is to come back when the node does. Its methods may wait for
// the disk.
type Journal interface {
	// Restarted tells how often a workload was started again.
	Restarted(id string, n int)
	// Ended tells that a workload is not to come back.
	Ended(id string)
}

// Call is the record of one function call.
type Call struct {
	Namespace, Name, ID string

	Trigger string // as registered
	Elapsed time.Duration
	Err     error // nil when it was answered with a value
}

// Summary is the state of a workload that has been deployed.
type Summary struct {
	ID      string
	Spec    Spec
	SHA256  string
	Healthy bool          // it runs now, rather than being started again, and answers
	Uptime  time.Duration // since it was deployed
	Busy    time.Duration // spent in function calls
	Refused int64         // calls of host services

	Unhealthy string        // why it is not healthy
	Restarts  int           // times it was started again
	LastExit  *nex.LastExit // how it ended before that, nil if it never did
}
