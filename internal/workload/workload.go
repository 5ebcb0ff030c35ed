package workload

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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

	triggers *triggers
	busy     atomic.Int64 // nanoseconds spent in calls
	bytes    int64        // guarded by Manager.mu

	mu       sync.Mutex
	state    state
	artifact artifact.Artifact
	deployed time.Time // first time it ran; zero before
}

// begin makes a workload and starts its loop. started gets nil when the
// workload first runs, or why it never did.
func begin(m *Manager, id string, spec Spec, started chan<- error) *workload {
	w := &workload{
		m: m, id: id, spec: spec, done: make(chan struct{}),
		log: m.cfg.Log.With("workload", spec.Name, "id", id),
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.triggers = newTriggers(w)
	go w.run(ctx, started)
	return w
}

// end is how a run on one guest ended.
type end struct {
	exit *guest.Exit // the service ended by itself; nil if its guest was lost
	err  error       // the run did not come about
}

// run is the workload's loop: one turn per guest, until ctx ends.
func (w *workload) run(ctx context.Context, started chan<- error) {
	defer close(w.done)
	defer w.m.remove(w)
	var last end
	for tries := 0; ; {
		var ran time.Duration
		last, ran = w.turn(ctx, started)
		if ctx.Err() != nil || !w.everRan() {
			break
		}
		if ran > healthyAfter {
			tries = 0
		}
		delay, again := w.next(last, tries)
		if !again {
			break
		}
		tries++
		w.report(nex.WorkloadRestarting{Name: w.spec.Name, Attempt: tries, Reason: last.reason(), DelayMS: delay.Milliseconds()})
		if !sleep(ctx, delay) {
			break
		}
	}
	w.finish(ctx, last, started)
}

// next asks the policy.
func (w *workload) next(e end, tries int) (time.Duration, bool) {
	r := restart{service: !w.spec.Type.IsFunction(), essential: w.spec.Essential && w.m.restarts()}
	if e.exit != nil {
		return r.afterExit(*e.exit, tries)
	}
	if e.err != nil {
		return r.afterLoss(max(tries, 1)), true
	}
	return r.afterLoss(tries), true
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

// turn runs the workload on one guest until it ends there.
func (w *workload) turn(ctx context.Context, started chan<- error) (end, time.Duration) {
	g, exits, release, err := w.start(ctx)
	if err != nil {
		w.move(pending)
		if w.everRan() {
			w.log.Warn("Workload did not start again", "error", err)
		}
		return end{err: err}, 0
	}
	defer release()
	begin := time.Now()
	w.move(running)
	w.markDeployed()
	w.triggers.attach(g)
	defer w.triggers.lose(g)
	w.report(nex.WorkloadDeployed{Name: w.spec.Name})
	select {
	case started <- nil:
	default: // it was told before
	}
	var e end
	select {
	case exit := <-exits:
		e.exit = &exit
		w.move(pending)
	case <-g.Done():
		w.move(pending)
	case <-ctx.Done():
		w.undeploy(g)
	}
	return e, time.Since(begin)
}

// start brings the workload onto a guest, or leaves nothing behind.
func (w *workload) start(ctx context.Context) (_ Guest, _ <-chan guest.Exit, release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	w.move(staging)
	art, err := w.stage(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	w.move(starting)
	g, release, err := w.m.sharing.acquire(ctx, w.spec)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %w", textPool, err)
	}
	exits := make(chan guest.Exit, 1)
	if err := w.load(ctx, g, art, exits); err != nil {
		w.undeploy(g)
		release()
		return nil, nil, nil, fmt.Errorf("%s: %w", textDeploy, err)
	}
	if err := w.triggers.subscribe(ctx); err != nil {
		w.undeploy(g)
		release()
		return nil, nil, nil, err
	}
	return g, exits, release, nil
}

// stage makes sure the artifact is on disk: the one first deployed, even if
// its name means another one by now.
func (w *workload) stage(ctx context.Context) (artifact.Artifact, error) {
	w.mu.Lock()
	had := w.artifact
	w.mu.Unlock()
	if a, ok := w.m.cfg.Artifacts.Find(had.SHA256); ok {
		return a, nil
	}
	ref := w.spec.Artifact
	ref.SHA256 = cmp.Or(had.SHA256, ref.SHA256)
	a, err := w.m.cfg.Artifacts.Fetch(ctx, ref, w.m.allow(w))
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

// load sends the artifact to the guest and has it loaded.
func (w *workload) load(ctx context.Context, g Guest, art artifact.Artifact, exits chan<- guest.Exit) error {
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
	sink := guest.Sink{Log: func(level slog.Level, text string) { w.m.cfg.Reporter.Log(subject, level, text) }}
	if !w.spec.Type.IsFunction() {
		sink.Exited = func(e guest.Exit) { exits <- e }
	}
	err = g.Deploy(ctx, d, f, sink)
	if nex.CodeOf(err) == nex.Invalid {
		return fmt.Errorf("%s: %w", textRejected, err)
	}
	return err
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
	calls, cancel := context.WithTimeout(ctx, drain)
	defer cancel()
	w.triggers.close(calls)
	w.cancel()
	select {
	case <-w.done:
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
		started <- last.err
		return
	}
	e := nex.WorkloadUndeployed{Name: w.spec.Name, Message: fmt.Sprintf("Workload stopped: %s; vm: %s", w.spec.Name, w.id)}
	if last.exit != nil {
		e.Code = last.exit.Code
		e.Message = fmt.Sprintf("Exited workload: %s; vm: %s; status: %d", w.spec.Name, w.id, last.exit.Code)
	}
	w.move(stopping)
	w.move(stopped)
	w.report(e)
}

// reason says in words why a run ended.
func (e end) reason() string {
	switch {
	case e.exit != nil:
		return e.exit.Message
	case e.err != nil:
		return e.err.Error()
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

func (w *workload) markDeployed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deployed.IsZero() {
		w.deployed = time.Now()
	}
}

func (w *workload) everRan() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.deployed.IsZero()
}

func (w *workload) report(e nex.EventData) { w.m.cfg.Reporter.Event(w.spec.Namespace, w.id, e) }

// summary is false for a workload that has not come up.
func (w *workload) summary() (Summary, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Summary{
		ID: w.id, Spec: w.spec, SHA256: w.artifact.SHA256, Healthy: w.state == running,
		Uptime: time.Since(w.deployed), Busy: time.Duration(w.busy.Load()),
	}, !w.deployed.IsZero()
}

func sortByAge(list []Summary) {
	slices.SortFunc(list, func(a, b Summary) int { return cmp.Compare(a.ID, b.ID) }) // ids grow with time
}
