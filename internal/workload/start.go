package workload

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"nex"
	"nex/internal/artifact"
	"nex/internal/guest"
)

// What a workload logs, its agent bounds; this bounds an agent that does not, to
// about twice as much: records a second in the long run, and at once.
const (
	logsPerSecond = 4000
	logsAtOnce    = 40_000
	tellFlood     = 10 * time.Second
)

// Pauses between attempts to fetch an artifact.
const (
	fetchPause    = 100 * time.Millisecond
	maxFetchPause = time.Second
)

// stay is a workload's time on one guest.
type stay struct {
	*seat
	exits chan guest.Exit // how a service ended
	// fault is whose the loss of the guest may be. It is set before the guest
	// is done, and read only after that.
	fault guest.Fault
}

// lost reports whether the guest is, and whose fault that may be.
func (s *stay) lost() (fault guest.Fault, yes bool) {
	select {
	case <-s.guest.Done():
		return s.fault, true
	default:
		return 0, false
	}
}

// start brings the workload onto a guest, or leaves nothing behind.
func (w *workload) start(ctx context.Context) (*stay, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	w.move(staging)
	art, err := w.stage(ctx)
	if err != nil {
		return nil, err
	}
	w.move(starting)
	for {
		s, again, err := w.settle(ctx, art)
		if err == nil || !again || ctx.Err() != nil {
			return s, err
		}
		w.log.Info("Workload is tried on another machine", "cause", err)
	}
}

// settle brings the workload onto one guest. If that fails it reports whether
// another guest may do.
func (w *workload) settle(ctx context.Context, art artifact.Artifact) (s *stay, again bool, err error) {
	seat, err := w.m.sharing.acquire(ctx, w.group, w.alone)
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", textPool, err)
	}
	s = &stay{seat: seat, exits: make(chan guest.Exit, 1)}
	err = w.load(ctx, s, art)
	if err != nil {
		again = w.elsewhere(s, err)
		err = fmt.Errorf("%s: %w", textDeploy, err)
	} else {
		seat.keep()
		err = w.triggers.subscribe(ctx)
	}
	if err != nil {
		w.undeploy(seat.guest)
		seat.release()
		return nil, again, err
	}
	return s, false, nil
}

// elsewhere reports whether a function that did not load is to be tried on
// another guest: this one was full, or was lost meanwhile. Who may have been the
// reason for the loss is tried alone, once, or first in a smaller group.
func (w *workload) elsewhere(s *stay, err error) bool {
	if nex.CodeOf(err) == nex.Exhausted {
		return s.full()
	}
	fault, lost := s.lost()
	if !lost || !w.spec.Type.IsFunction() {
		return false
	}
	return w.part(fault) || fault == guest.FaultOthers
}

// stage makes sure the artifact is on disk: the one first deployed, even if
// its name means another one by now.
func (w *workload) stage(ctx context.Context) (artifact.Artifact, error) {
	w.mu.Lock()
	had := w.artifact
	w.mu.Unlock()
	if a, ok := w.m.cfg.Artifacts.Find(had.SHA256); ok {
		return a, w.m.allow(w)(a.Size) // one that is restored has not been counted
	}
	ref := w.spec.Artifact
	ref.SHA256 = cmp.Or(had.SHA256, ref.SHA256)
	a, err := w.fetch(ctx, ref)
	if nex.CodeOf(err) == nex.Exhausted {
		return a, err // a limit of this node, whose text says it all
	}
	if err != nil {
		return a, fmt.Errorf("%s: %w", textFetch, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.artifact = a
	return a, nil
}

// fetch tries again what may succeed in a moment, as when a server has just
// started again.
func (w *workload) fetch(ctx context.Context, ref artifact.Ref) (artifact.Artifact, error) {
	for wait := fetchPause; ; wait *= 3 {
		a, err := w.m.cfg.Artifacts.Fetch(ctx, ref, w.m.allow(w))
		code := nex.CodeOf(err)
		if err == nil || code != nex.Unavailable && code != nex.Internal || wait > maxFetchPause || !sleep(ctx, wait) {
			return a, err
		}
		w.log.Info("Artifact is fetched again", "cause", err)
	}
}

// load sends the artifact to the guest and has it loaded.
func (w *workload) load(ctx context.Context, s *stay, art artifact.Artifact) error {
	f, err := os.Open(art.Path)
	if err != nil {
		return fmt.Errorf("open artifact: %w", err)
	}
	defer f.Close()
	d := guest.Deploy{
		ID: w.id, Namespace: w.spec.Namespace, Name: w.spec.Name, File: w.spec.File, Type: w.spec.Type,
		SHA256: art.SHA256, Argv: w.spec.Argv, Environment: w.spec.Environment, Static: w.spec.Static,
		Settings: w.spec.Settings,
	}
	subject := nex.LogSubject{Namespace: w.spec.Namespace, Node: w.m.cfg.NodeID, Workload: w.spec.Name, ID: w.id}
	sink := guest.Sink{
		Log: func(level slog.Level, text string) {
			if w.logs.Allow() {
				w.m.cfg.Reporter.Log(subject, level, text)
			} else {
				w.tellFlood.Do(func() { w.log.Warn("The agent sends more log records than agents let through; some are dropped") })
			}
		},
		Lost: func(f guest.Fault) { s.fault = f },
		Host: w.host.Serve,
	}
	if !w.spec.Type.IsFunction() {
		sink.Exited = func(e guest.Exit) { s.exits <- e }
		sink.Limited = func(i guest.Incident) {
			w.report(nex.WorkloadLimitHit{Name: w.spec.Name, Cause: i.Cause, Message: i.Message})
		}
	}
	err = s.guest.Deploy(ctx, d, f, sink)
	if nex.CodeOf(err) == nex.Invalid {
		return fmt.Errorf("%s: %w", textRejected, err)
	}
	return err
}
