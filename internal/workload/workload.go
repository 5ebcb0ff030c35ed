package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"nex"
	"nex/internal/artifact"
	"nex/internal/guest"
)

const (
	// startTimeout bounds one start: fetch, boot, compile.
	startTimeout = 2 * time.Minute
	// stopService is how much longer than its grace the end of a service on
	// its guest may take.
	stopService = 5 * time.Second
	// stopFunction bounds the end of a function on its guest, whose calls
	// have ended by then or will not.
	stopFunction = 2 * time.Second
)

// Refusals as Nex 0.2.7 words them.
const (
	textPool     = "Failed to get agent client from pool"
	textFetch    = "Failed to cache workload bytes"
	textDeploy   = "Failed to deploy workload"
	textRejected = "workload rejected by agent"
)

// workload is one deployed Spec. Its loop, run, alone changes what it is.
type workload struct {
	m      *Manager
	id     string
	spec   Spec
	log    *slog.Logger
	cancel context.CancelFunc // tells the loop to end
	done   chan struct{}      // closed when the loop has ended

	triggers  *triggers
	host      Host
	logs      *rate.Limiter  // of log records
	tellFlood rate.Sometimes // that there are too many
	busy      atomic.Int64   // nanoseconds spent in calls
	bytes     int64          // guarded by Manager.mu
	group     group          // whom it shares a guest with; of the loop alone
	alone     bool           // it shares none, or no more; of the loop alone
	restarts  restarts       // of the loop alone

	mu       sync.Mutex
	state    state
	artifact artifact.Artifact
	deployed time.Time // first time it ran; zero before
	guest    Guest     // what it runs on, nil if it does not
	health   health
	again    int           // times it was started again
	lastExit *nex.LastExit // how it ended before that
}

// past is what there is of a workload before it begins.
type past struct {
	id       string
	sha256   string // of its artifact, if that is settled
	restarts int
	ran      bool // in an earlier process of this node
}

// begin makes a workload and starts its loop. started gets nil when the
// workload first runs, or why it never did.
func begin(m *Manager, p past, spec Spec, started chan<- error) *workload {
	id := p.id
	w := &workload{
		m: m, id: id, spec: spec, done: make(chan struct{}), again: p.restarts,
		group: group{namespace: spec.Namespace}, alone: !spec.Type.IsFunction(),
		log:      m.cfg.Log.With("workload", spec.Name, "id", id),
		restarts: newRestarts(spec, rand.Float64),
		logs:     rate.NewLimiter(logsPerSecond, logsAtOnce), tellFlood: rate.Sometimes{First: 1, Interval: tellFlood},
	}
	w.artifact.SHA256 = p.sha256
	if p.ran {
		w.deployed, w.health.reason = time.Now(), "not back yet since the node started again"
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.triggers = newTriggers(w)
	w.host = m.cfg.Host(id, spec)
	go w.run(ctx, started)
	return w
}

// end is how a run on one guest ended.
type end struct {
	exit    *guest.Exit // the service ended by itself; nil if its guest was lost
	err     error       // the run did not come about, or the service did not get ready
	unready bool        // it is the latter
	final   bool        // the policy wants no other run: it has not ended with its node
	fault   guest.Fault // whose the loss of the guest may be
}

// run is the workload's loop: one turn per guest, until ctx ends.
func (w *workload) run(ctx context.Context, started chan<- error) {
	defer close(w.done)
	defer w.m.remove(w)
	defer w.host.Close()
	var last end
	for {
		var healthy time.Duration
		last, healthy = w.turn(ctx, started)
		if !w.everRan() {
			break
		}
		delay, again := w.restarts.next(last, healthy)
		if last.final = !again; !again || ctx.Err() != nil || !w.m.restarts() {
			break
		}
		w.tell(last, delay)
		w.part(last.fault)
		if !sleep(ctx, delay) || !w.m.restarts() {
			break
		}
	}
	w.finish(ctx, last, started)
}

// tell reports that the workload is going to be started again.
func (w *workload) tell(last end, delay time.Duration) {
	exit := nex.LastExit{Reason: last.reason(), At: time.Now()}
	if last.exit != nil {
		exit.Code, exit.Cause = last.exit.Code, last.exit.Cause
	}
	if last.err == nil || last.unready { // it did run
		w.mu.Lock()
		w.again++
		again := w.again
		w.lastExit = &exit
		w.mu.Unlock()
		w.m.cfg.Journal.Restarted(w.id, again)
	}
	w.report(nex.WorkloadRestarting{
		Name: w.spec.Name, Attempt: max(w.restarts.tries, 1), Reason: exit.Reason, DelayMS: delay.Milliseconds(),
		Offender: last.fault == guest.FaultOwn && w.spec.Type.IsFunction(),
	})
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// turn runs the workload on one guest until it ends there, and returns for how
// long it had been healthy then.
func (w *workload) turn(ctx context.Context, started chan<- error) (e end, healthy time.Duration) {
	s, err := w.start(ctx)
	if err != nil {
		w.move(pending)
		if w.everRan() {
			w.log.Warn("Workload did not start again", "error", err)
			w.setHealth(err)
		}
		return end{err: err}, 0
	}
	defer s.release()
	w.move(running)
	w.markDeployed(s.guest)
	w.triggers.attach(s.guest)
	defer w.triggers.lose(s.guest)
	w.report(nex.WorkloadDeployed{Name: w.spec.Name})
	select {
	case started <- nil:
	default: // it was told before
	}
	check := w.checkHealth(ctx, s.guest)
	defer func() {
		check.stop()
		healthy = w.markEnded(e)
	}()
	select {
	case exit := <-s.exits:
		e.exit = &exit
		w.move(pending)
	case <-s.guest.Done():
		select {
		case exit := <-s.exits: // it ended before
			e.exit = &exit
		default:
			e.fault = s.fault
		}
		w.move(pending)
	case err := <-check.failed:
		e.err, e.unready = err, true
		w.undeploy(s.guest)
		w.move(pending)
	case <-ctx.Done():
		w.undeploy(s.guest)
	}
	return e, 0
}

// undeploy takes the workload off its guest; one that will not let go is lost
// with it.
func (w *workload) undeploy(g Guest) {
	select {
	case <-g.Done():
		return
	default:
	}
	bound := w.spec.Settings.StopGrace() + stopService
	if w.spec.Type.IsFunction() {
		bound = stopFunction
	}
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	if err := g.Undeploy(ctx, w.id); err != nil {
		w.log.Warn("Workload did not end in order, its machine is destroyed", "error", err)
		g.Release()
	}
}

// stop ends the workload and waits until it is gone: first no more triggers,
// then the calls that are running, for as long as drain allows, then the
// workload itself. When ctx ends only the waiting does.
func (w *workload) stop(ctx context.Context, drain time.Duration) error {
	w.move(stopping)
	asked := make(chan struct{})
	go func() { // it ends with the calls at the latest, whoever waits for that
		defer close(asked)
		calls, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		w.triggers.close(calls)
		w.cancel()
	}()
	select {
	case <-w.done:
		<-asked
		return nil
	case <-ctx.Done():
		return nex.Errorf(nex.Timeout, "workload %s is still ending", w.spec.Name)
	}
}

// drain is how long a stop waits for calls under way: as long as they may
// take, and a little for those the server has yet to deliver.
func (w *workload) drain() time.Duration { return w.spec.Settings.FunctionTimeout() + drainSlack }

// finish reports the end, once.
func (w *workload) finish(ctx context.Context, last end, started chan<- error) {
	calls, cancel := context.WithTimeout(ctx, w.drain())
	defer cancel()
	w.triggers.close(calls)
	w.cancel()
	if !w.everRan() {
		w.move(failed)
		if errors.Is(last.err, context.Canceled) {
			last.err = nex.Errorf(nex.Unavailable, "workload %s was not started: it was stopped, as when its node ends", w.spec.Name)
		}
		started <- last.err
		return
	}
	e := nex.WorkloadUndeployed{Name: w.spec.Name, Message: fmt.Sprintf("Workload stopped: %s; vm: %s", w.spec.Name, w.id)}
	if last.exit != nil {
		e.Code = last.exit.Code
		e.Message = fmt.Sprintf("Exited workload: %s; vm: %s; status: %d", w.spec.Name, w.id, last.exit.Code)
		if last.exit.Cause != "" {
			e.Message += "; cause: " + string(last.exit.Cause)
		}
	}
	if w.restarts.gaveUp {
		e.Message += fmt.Sprintf("; given up after %d restarts in a row", w.restarts.spent)
	}
	w.move(stopping)
	w.move(stopped) // and so not listed: whoever recorded it looks for that, before the journal hears of the end
	if last.final {
		w.m.cfg.Journal.Ended(w.id)
	} else {
		w.m.Forget(w.id)
	}
	w.report(e)
}

// reason says in words why a run ended.
func (e end) reason() string {
	switch {
	case e.exit != nil && e.exit.Cause != "":
		return fmt.Sprintf("%s (%s)", e.exit.Message, e.exit.Cause)
	case e.exit != nil:
		return e.exit.Message
	case e.err != nil:
		return e.err.Error()
	case e.fault == guest.FaultOwn:
		return "machine lost, perhaps through this workload"
	case e.fault == guest.FaultCrowd:
		return "machine lost through one of many workloads, perhaps this one"
	case e.fault == guest.FaultOthers:
		return "machine lost through another workload"
	}
	return "machine lost"
}

// move goes to the next state. A workload that is stopping stays so, whatever
// its loop meets on the way; that alone is not an error here.
func (w *workload) move(next state) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, err := w.state.to(next)
	if err != nil {
		if w.state != stopping && w.state != next {
			w.log.Error("Workload state", "error", err)
		}
		return
	}
	w.state = s
}

func (w *workload) markDeployed(g Guest) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.guest = g
	w.health.begin(w.spec.Settings.Ready)
	if w.deployed.IsZero() {
		w.deployed = time.Now()
	}
}

// markEnded notes that the workload runs nowhere, and returns for how long it
// had been healthy.
func (w *workload) markEnded(e end) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.guest = nil
	return w.health.end(e.reason())
}

func (w *workload) everRan() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.deployed.IsZero()
}

func (w *workload) report(e nex.EventData) { w.m.cfg.Reporter.Event(w.spec.Namespace, w.id, e) }

// usage is what a service uses now, nil if that is not known. Functions share
// their guests.
func (w *workload) usage() *nex.Usage {
	w.mu.Lock()
	g := w.guest
	w.mu.Unlock()
	if g == nil || w.spec.Type.IsFunction() {
		return nil
	}
	u, err := g.Usage()
	if err != nil {
		w.log.Debug("Usage of a workload is not known", "error", err)
		return nil
	}
	return &u
}

// summary is false for a workload that has not come up, or has ended.
func (w *workload) summary() (Summary, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := Summary{
		ID: w.id, Spec: w.spec, SHA256: w.artifact.SHA256, Healthy: w.state == running && w.health.good(),
		Uptime: time.Since(w.deployed), Busy: time.Duration(w.busy.Load()), Refused: w.host.Refused(),
		Restarts: w.again, LastExit: w.lastExit,
	}
	if !s.Healthy {
		s.Unhealthy = w.health.reason
	}
	return s, !w.deployed.IsZero() && w.state != stopped
}

func sortByAge(list []Summary) {
	slices.SortFunc(list, func(a, b Summary) int { return cmp.Compare(a.ID, b.ID) }) // ids grow with time
}
