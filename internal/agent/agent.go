// Package agent is the program inside every machine: it says hello on the
// guest link, loads workloads, runs functions when the node triggers them and
// services until the node stops them, and passes on what they print.
//
// An agent trusts its node and serves nobody else. What it does on its host
// stays inside one directory of its own and the processes it starts.
package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"nex"
	"nex/internal/guest"
	"nex/internal/runtime"
	"nex/internal/runtime/native"
)

// closeTimeout bounds the end of one workload when the agent ends.
const closeTimeout = time.Second

// Config says how an agent works.
type Config struct {
	Version string // this build
	Dir     string // an empty private directory
	Cache   string // outlives the agent and keeps compiled code; "" means compile each time
	Quit    func() // ends this process at once, with all that runs in it
	// Clock hears what time it is at the node, on goroutines of the agent; nil does
	// not.
	Clock func(time.Time)

	// Confine restricts the calling thread, and the service that it starts, to the
	// directory of a workload; nil does not.
	Confine func(dir string) error
	Notice  string // the first line in the log of every service; "" for none
	// Alone says that this process is an agent and nothing else, and begins its
	// main function with [Shim].
	Alone bool
	Doors []*os.File // to where services are limited, see [InheritedDoors]
	// Limit bounds what goes through the doors, before it does; nil where the node
	// sees to that.
	Limit func(nex.Resources) error
}

// Shim is for the beginning of main: an agent starts its program again, to
// become a service. It returns false if args are not for that.
func Shim(args []string) (code int, was bool) { return native.Shim(args) }

// Run serves the node at the other end of conn until the link or ctx ends.
// Then every workload has ended too.
func Run(ctx context.Context, conn net.Conn, cfg Config) error {
	a := &agent{cfg: cfg, uploads: map[string]*upload{}, loading: map[string]*loading{}, workloads: map[string]*workload{}}
	a.server = guest.NewServer(conn, a)
	a.server.Clock = cfg.Clock
	a.overseer = newOverseer(a.giveUp)
	defer a.overseer.end()
	a.waits.Go(func() { warm(ctx) })
	err := a.server.Run(ctx, guest.Hello{Version: cfg.Version, Types: types()})
	return errors.Join(err, a.close())
}

// agent implements [guest.Handler].
type agent struct {
	cfg    Config
	server *guest.Server
	waits  sync.WaitGroup // one per service, and for the engine to be warm

	overseer *overseer // of calls, and of functions being loaded

	mu        sync.Mutex
	uploads   map[string]*upload
	loading   map[string]*loading
	workloads map[string]*workload
}

// loading is a workload whose engine is working on it.
type loading struct {
	cancel context.CancelFunc
	done   chan struct{}
}

var _ guest.Handler = (*agent)(nil)

// upload is an artifact on its way in. One call at a time touches it: the
// node sends pieces in order.
type upload struct {
	file *os.File
	hash hash.Hash
}

// workload is loaded and ready: exactly one of its halves is set.
type workload struct {
	function runtime.Function
	service  runtime.Service
	dir      string
	log      *throttle
	given    int64         // bytes in dir before a service began
	stopping bool          // guarded by agent.mu
	cause    string        // why the agent ended the service; guarded by agent.mu
	over     chan struct{} // closed when a service has ended
}

// dir is where everything of one workload lives.
func (a *agent) dir(id string) string { return filepath.Join(a.cfg.Dir, filepath.Base(id)) }

// Put appends a piece to an artifact.
func (a *agent) Put(_ context.Context, id string, piece []byte) (err error) {
	defer func() { err = diskFull(err) }()
	a.mu.Lock()
	u := a.uploads[id]
	a.mu.Unlock()
	if u == nil {
		dir := a.dir(id)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return fmt.Errorf("make workload directory: %w", err)
		}
		f, err := os.OpenFile(filepath.Join(dir, "artifact"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o700)
		if err != nil {
			return fmt.Errorf("store artifact: %w", err)
		}
		u = &upload{file: f, hash: sha256.New()}
		a.mu.Lock()
		a.uploads[id] = u
		a.mu.Unlock()
	}
	_, _ = u.hash.Write(piece) // a hash never fails
	if _, err := u.file.Write(piece); err != nil {
		return fmt.Errorf("store artifact: %w", err)
	}
	return nil
}

// Deploy loads a workload whose artifact is complete. An error leaves nothing
// of it behind.
func (a *agent) Deploy(ctx context.Context, d guest.Deploy) (err error) {
	defer a.guard(d.ID, &err)
	ctx, cancel := context.WithCancel(ctx)
	l := &loading{cancel: cancel, done: make(chan struct{})}
	defer close(l.done)
	defer cancel()
	a.mu.Lock()
	a.loading[d.ID] = l
	a.mu.Unlock()
	w, err := a.load(ctx, d)
	if err == nil && !a.register(ctx, d.ID, w, disk(d)) {
		return errors.Join(ctx.Err(), w.end(context.WithoutCancel(ctx)))
	}
	if err != nil {
		return errors.Join(diskFull(err), a.unload(d.ID))
	}
	return nil
}

// diskFull makes an error that has to do with a full disk say that trying again
// may help: it is no defect of the agent.
func diskFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return nex.Errorf(nex.Unavailable, "the disk under this machine is full: %v", err)
	}
	return err
}

// disk is how many bytes the directory of a workload may hold, 0 for any number.
func disk(d guest.Deploy) int64 { return int64(d.Settings.Resources.DiskMiB) << 20 }

// register makes a loaded workload known, unless it is not wanted any more. Its
// directory may hold as much as disk.
func (a *agent) register(ctx context.Context, id string, w *workload, disk int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.loading, id)
	if ctx.Err() != nil {
		return false
	}
	a.workloads[id] = w
	if w.service != nil {
		a.waits.Go(func() { a.wait(id, w) })
		a.watchDisk(id, w, disk)
	}
	return true
}

// unload forgets a workload that did not load.
func (a *agent) unload(id string) error {
	a.mu.Lock()
	delete(a.loading, id)
	a.mu.Unlock()
	return os.RemoveAll(a.dir(id))
}

// guard turns a panic of an engine into its caller's error: it is not the end
// of the agent.
func (a *agent) guard(id string, err *error) {
	if p := recover(); p != nil {
		a.server.Log(id, slog.LevelError, fmt.Sprintf("panic in the runtime: %v\n%s", p, debug.Stack()))
		*err = nex.Errorf(nex.Internal, "panic in the runtime: %v", p)
	}
}

func (a *agent) load(ctx context.Context, d guest.Deploy) (*workload, error) {
	path, err := a.finish(d)
	if err != nil {
		return nil, err
	}
	w := &workload{dir: a.dir(d.ID), over: make(chan struct{})}
	w.log = newThrottle(func(level slog.Level, text string) { a.server.Log(d.ID, level, text) })
	log := runtime.Log(w.log.log)
	if d.Type.IsFunction() {
		w.function, err = a.loadFunction(ctx, d, path, log)
	} else {
		w.given, _ = measure(w.dir, math.MaxInt64)
		w.service, err = a.startService(d, path, log)
	}
	return w, refusal(d.Type, err)
}

// finish closes an upload and checks that it is what was announced.
func (a *agent) finish(d guest.Deploy) (path string, err error) {
	a.mu.Lock()
	u := a.uploads[d.ID]
	delete(a.uploads, d.ID)
	a.mu.Unlock()
	if u == nil {
		return "", nex.Errorf(nex.Invalid, "%s is empty", d.File)
	}
	if err := u.file.Close(); err != nil {
		return "", fmt.Errorf("store artifact: %w", err)
	}
	if got := hex.EncodeToString(u.hash.Sum(nil)); got != d.SHA256 {
		return "", nex.Errorf(nex.Invalid, "artifact arrived with SHA-256 %s, want %s", got, d.SHA256)
	}
	return u.file.Name(), nil
}

// wait tells the node when a service ends by itself.
func (a *agent) wait(id string, w *workload) {
	exit, err := w.service.Wait(context.Background())
	close(w.over)
	w.log.close()
	a.mu.Lock()
	stopping, cause := w.stopping, w.cause
	delete(a.workloads, id)
	a.mu.Unlock()
	if stopping || err != nil {
		return
	}
	if err := os.RemoveAll(w.dir); err != nil {
		a.server.Log(id, slog.LevelError, "workload directory cannot be removed: "+err.Error())
	}
	if exit.TooLarge {
		cause = nex.CauseDisk
	}
	_ = a.server.Exited(id, guest.Exit{Code: exit.Code, Message: exit.String(), Cause: cause}) // fails only when the link ends
}

// Invoke runs a function once.
func (a *agent) Invoke(ctx context.Context, t guest.Trigger) (r guest.Result, err error) {
	a.mu.Lock()
	w := a.workloads[t.ID]
	a.mu.Unlock()
	if w == nil || w.function == nil {
		return guest.Result{}, nex.Errorf(nex.NotFound, "no function %s on this machine", t.ID)
	}
	defer a.guard(t.ID, &err)
	defer a.overseer.back(a.overseer.begin(ctx, t.ID))
	reply, err := w.function.Invoke(ctx, runtime.Trigger{Subject: t.Subject, Reply: t.Reply, Header: t.Header, Payload: t.Payload})
	return guest.Result{Header: reply.Header, Payload: reply.Payload}, err
}

// Undeploy ends a workload, also one that is being loaded, and removes what it
// left. Unknown ids are fine: they may have ended by themselves.
func (a *agent) Undeploy(ctx context.Context, id string) error {
	a.mu.Lock()
	w, u, l := a.workloads[id], a.uploads[id], a.loading[id]
	delete(a.workloads, id)
	delete(a.uploads, id)
	if w != nil {
		w.stopping = true
	}
	a.mu.Unlock()
	switch {
	case l != nil:
		l.cancel()
		select {
		case <-l.done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	case w != nil:
		return w.end(ctx)
	case u != nil:
		return errors.Join(u.file.Close(), os.RemoveAll(a.dir(id)))
	}
	return nil
}

func (w *workload) end(ctx context.Context) error {
	var err error
	if w.function != nil {
		err = w.function.Close(ctx)
		w.log.close()
	} else {
		err = w.service.Stop(ctx)
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

// close ends all workloads at once.
func (a *agent) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	a.mu.Lock()
	ids := make([]string, 0, len(a.workloads))
	for id := range a.workloads {
		ids = append(ids, id)
	}
	for _, u := range a.uploads {
		_ = u.file.Close() // half an artifact, of no use
	}
	a.mu.Unlock()
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() { errs[i] = a.Undeploy(ctx, id) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err // what does not end in time dies with the agent
	}
	a.waits.Wait()
	return nil
}
