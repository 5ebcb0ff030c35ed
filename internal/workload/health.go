package workload

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"nex"
	"nex/internal/guest"
)

const (
	// startEvery is the time between two looks at a service that is not ready yet.
	startEvery = 250 * time.Millisecond
	// maxMisses is how often in a row a service that was ready may fail to answer
	// before it counts as unhealthy.
	maxMisses = 3
	// probeSlack is how much later than the guest the node gives up a look.
	probeSlack = 500 * time.Millisecond
	// maxReason bounds what is told of a reason: services have a say in it.
	maxReason = 256
)

// notReady is the reason while a service has not answered yet.
const notReady = "not ready yet"

// health is how a workload is doing. The zero value is not healthy.
type health struct {
	since  time.Time // when it became healthy; zero if it is not
	reason string    // why it is not
}

func (h *health) good() bool { return !h.since.IsZero() }

// end notes that a run ended, and returns for how long it had been healthy.
func (h *health) end(reason string) (healthy time.Duration) {
	if h.good() {
		healthy = time.Since(h.since)
	}
	*h = health{reason: brief(reason)}
	return healthy
}

func brief(reason string) string {
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "") + "…"
	}
	return reason
}

// check watches one run of a workload.
type check struct {
	// failed gets an error if the service does not get ready in time.
	failed chan error
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// stop returns when nothing is looked at any more.
func (c *check) stop() {
	c.cancel()
	c.done.Wait()
}

// begin notes that a run began. Without a setting that says how to tell, a
// workload that runs is healthy.
func (h *health) begin(r nex.Ready) {
	if r == (nex.Ready{}) {
		*h = health{since: time.Now()}
	} else {
		*h = health{reason: notReady}
	}
}

// checkHealth finds out whether the workload is healthy until it is stopped.
func (w *workload) checkHealth(ctx context.Context, g Guest) *check {
	ctx, cancel := context.WithCancel(ctx)
	c := &check{failed: make(chan error, 1), cancel: cancel}
	r := w.spec.Settings.Ready
	if r == (nex.Ready{}) {
		return c
	}
	c.done.Go(func() {
		if r.AfterMS > 0 {
			if sleep(ctx, r.After()) {
				w.tellHealth(nil)
			}
			return
		}
		if err := w.awaitReady(ctx, g); err != nil {
			if ctx.Err() == nil {
				c.failed <- err
			}
			return
		}
		w.tellHealth(nil)
		w.keepLooking(ctx, g)
	})
	return c
}

// awaitReady returns when the service has answered for the first time, or why it
// has not in the time it has for that.
func (w *workload) awaitReady(ctx context.Context, g Guest) error {
	r := w.spec.Settings.Ready
	limit := ctx
	if r.WithinMS > 0 {
		bounded, cancel := context.WithTimeout(ctx, r.Within())
		defer cancel()
		limit = bounded
	}
	for {
		err := w.look(limit, g)
		if err == nil {
			return nil
		}
		if limit.Err() == nil {
			w.setHealth(fmt.Errorf(notReady+": %w", err))
			if sleep(limit, startEvery) {
				continue
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		return fmt.Errorf("the service was not ready within %s: %s", r.Within(), strings.TrimPrefix(w.health.reason, notReady+": "))
	}
}

// keepLooking looks at a service that was ready until ctx ends.
func (w *workload) keepLooking(ctx context.Context, g Guest) {
	for misses := 0; sleep(ctx, w.spec.Settings.Ready.Every()); {
		err := w.look(ctx, g)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err != nil:
			misses++
			if misses == maxMisses {
				w.tellHealth(err)
			} else if misses > maxMisses {
				w.setHealth(err)
			}
		case misses >= maxMisses:
			w.tellHealth(nil)
			fallthrough
		default:
			misses = 0
		}
	}
}

// look asks the service once.
func (w *workload) look(ctx context.Context, g Guest) error {
	r := w.spec.Settings.Ready
	ctx, cancel := context.WithTimeout(ctx, r.Timeout()+probeSlack)
	defer cancel()
	if r.TCPPort > 0 {
		return g.Probe(ctx, guest.Probe{ID: w.id, Port: r.TCPPort, Path: r.HTTPPath, TimeoutMS: int(r.Timeout().Milliseconds())})
	}
	return w.host.Answers(ctx, r)
}

// setHealth notes how the workload is doing; nil is well.
func (w *workload) setHealth(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err != nil:
		w.health = health{reason: brief(err.Error())}
	case !w.health.good():
		w.health = health{since: time.Now()}
	}
}

// tellHealth notes and reports it.
func (w *workload) tellHealth(err error) {
	w.setHealth(err)
	e := nex.WorkloadHealth{Name: w.spec.Name, Healthy: err == nil}
	if err != nil {
		e.Reason = brief(err.Error())
	}
	w.report(e)
}
