package machine

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"nex"
	"nex/internal/cgroup"
	"nex/internal/guest"
)

const (
	// lookAtLimits is how often it is looked whether a service met a limit.
	lookAtLimits = time.Second
	// repeatAfter is how long a limit that is met again and again is not told
	// again.
	repeatAfter = time.Minute
	// stillTheCause is how long before its end a service must have met a limit
	// for that to be the cause of its end.
	stillTheCause = 2 * lookAtLimits
)

// Usage tells what the services of the machine use now.
func (g *Guest) Usage() (nex.Usage, error) { return g.machine.Usage() }

// Deploy is [guest.Client.Deploy] on a machine that was readied for the workload,
// if that is a service. What is wrong with the limits it asks for is an error
// before the artifact is sent.
func (g *Guest) Deploy(ctx context.Context, d guest.Deploy, artifact io.Reader, sink guest.Sink) error {
	if d.Type.IsFunction() {
		return g.Client.Deploy(ctx, d, artifact, sink)
	}
	r := d.Settings.Resources
	if err := g.machine.Admit(r); err != nil {
		return fmt.Errorf("ready machine %s for a service: %w", g.ID(), err)
	}
	if r == (nex.Resources{}) {
		return g.Client.Deploy(ctx, d, artifact, sink)
	}
	w := &limits{machine: g.machine, resources: r, tell: sink.Limited}
	if w.tell == nil {
		w.tell = func(guest.Incident) {}
	}
	if exited := sink.Exited; exited != nil {
		sink.Exited = func(e guest.Exit) { exited(w.judge(e)) }
	}
	if err := g.Client.Deploy(ctx, d, artifact, sink); err != nil {
		return err
	}
	select {
	case g.limited <- w:
	case <-g.gone: // it was lost meanwhile
	}
	return nil
}

// limits sees that a service meets a limit. The node counts: what a guest says
// of its memory is not asked.
type limits struct {
	machine   Machine
	resources nex.Resources
	tell      func(guest.Incident)

	mu       sync.Mutex
	seen     cgroup.Hits
	oomAt    time.Time // the latest was seen
	pidsTold time.Time
}

// look tells what happened since the last look.
func (l *limits) look(now time.Time) {
	hits, err := l.machine.Hits()
	if err != nil {
		return // the machine is ending
	}
	l.mu.Lock()
	oom := hits.OOMKills > l.seen.OOMKills
	pids := hits.PIDs > l.seen.PIDs && (l.pidsTold.IsZero() || now.Sub(l.pidsTold) >= repeatAfter)
	l.seen.OOMKills = hits.OOMKills
	if oom {
		l.oomAt = now
	}
	if pids {
		l.seen.PIDs, l.pidsTold = hits.PIDs, now
	}
	l.mu.Unlock()
	if oom {
		l.tell(guest.Incident{Cause: nex.CauseOOM, Message: fmt.Sprintf("processes were killed: they wanted more than %d MiB of memory together (resources.memory_mib)", l.resources.MemoryMiB)})
	}
	if pids {
		l.tell(guest.Incident{Cause: nex.CausePIDs, Message: fmt.Sprintf("processes or threads could not begin: there may be %d at once (resources.pids)", l.resources.PIDs)})
	}
}

// judge says what ended a service, as far as that was a limit.
func (l *limits) judge(e guest.Exit) guest.Exit {
	now := time.Now()
	l.look(now)
	l.mu.Lock()
	oom := !l.oomAt.IsZero() && now.Sub(l.oomAt) < stillTheCause
	l.mu.Unlock()
	switch {
	case e.Cause == nex.CauseDisk && l.resources.DiskMiB == 0:
		e.Cause = "" // nobody asked for it
	case e.Cause == nex.CauseDisk:
		l.tell(guest.Incident{Cause: nex.CauseDisk, Message: fmt.Sprintf("the service was ended: its directory may hold %d MiB (resources.disk_mib)", l.resources.DiskMiB)})
	case oom && e.Code != 0:
		e.Cause = nex.CauseOOM
	}
	return e
}
