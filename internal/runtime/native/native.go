// Package native runs services: executables in the machine's own format, each
// in a process group of its own, with an environment of its own and nothing of
// the caller's. What a service prints becomes log records.
//
// A [Process] is safe for concurrent use. When its main process is gone, the
// rest of its group is killed, so nothing stays behind but processes that left
// the group on purpose. The package relies on nobody else waiting for its
// children.
package native

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"nex"
	"nex/internal/runtime"
)

const (
	defaultGrace = 10 * time.Second
	killTime     = 10 * time.Second      // from SIGKILL to giving up on a process
	busyWait     = 20 * time.Millisecond // between tries to start a file that is still open for writing
	busyTries    = 50
)

// Options says what to start. Path, Dir and Log are required.
type Options struct {
	Path   string            // the executable file, in place, mode 0700
	Dir    string            // the working directory, in place, mode 0700
	Args   []string          // the arguments after the program's name, which is Path
	Env    map[string]string // the whole environment but for PATH and HOME; keys become upper case
	Grace  time.Duration     // from SIGTERM to SIGKILL; 0 means 10 seconds
	Static bool              // refuse what CheckStatic refuses
	Log    runtime.Log       // receives standard output as INFO, standard error as ERROR

	// Confine, if set, restricts the calling thread, and so what is started from
	// it. Nothing else runs on that thread afterwards.
	Confine func() error
	// Alone says that this process has no other children, and begins its main
	// function with [Shim]. Then it limits the service before that begins, and
	// ends all that it leaves, whatever group or session that went to. There is
	// one such service at a time. On other systems than Linux it means nothing.
	Alone bool
	// Doors lead to where the service is limited: what writes "0" to all of them
	// is. They stay the caller's. Without any, limits of one process stand in
	// for those of memory and processes. Only for services that are alone.
	Doors     []*os.File
	Resources nex.Resources // files and disk bound each process and file
}

// bounds are the limits that the process is to give itself.
func (o Options) bounds() bounds {
	b := bounds{Doors: len(o.Doors), Files: uint64(o.Resources.Files), File: uint64(o.Resources.DiskMiB) << 20}
	if len(o.Doors) == 0 {
		b.Memory, b.PIDs = uint64(o.Resources.MemoryMiB)<<20, uint64(o.Resources.PIDs)
	}
	return b
}

// occupied is whether a service is alone.
var occupied atomic.Bool

// Process is a service that has started.
type Process struct {
	grace     time.Duration
	alone     bool
	doors     []*os.File // to its cgroup
	log       runtime.Log
	main      *os.Process   // the group's leader
	done      chan struct{} // closed when all is over
	exit      runtime.Exit  // valid once done is closed
	terminate sync.Once

	mu   sync.Mutex
	gone bool // the group's number may be somebody else's; guarded by mu
}

var _ runtime.Service = (*Process)(nil)

// Start checks the executable and starts it. An executable that cannot run
// here gives a [nex.Error] with code Invalid.
func Start(o Options) (*Process, error) {
	if o.Log == nil {
		return nil, errors.New("start native service: no log")
	}
	check := Check
	if o.Static {
		check = CheckStatic
	}
	if err := check(o.Path); err != nil {
		return nil, err
	}
	env, err := environment(o.Env, o.Dir)
	if err != nil {
		return nil, err
	}
	path, err := filepath.Abs(o.Path)
	if err != nil {
		return nil, fmt.Errorf("start native service: %w", err)
	}
	if _, err := os.Stat(o.Dir); err != nil {
		return nil, fmt.Errorf("start native service: working directory: %w", err)
	}
	p := &Process{grace: o.Grace, log: o.Log, done: make(chan struct{})}
	if p.grace <= 0 {
		p.grace = defaultGrace
	}
	prog := program{
		path: path,
		argv: append([]string{o.Path}, o.Args...),
	}
	if o.Alone {
		if !occupied.CompareAndSwap(false, true) {
			return nil, errors.New("start native service: this process has one already, which is alone")
		}
		p.alone, p.doors, prog.bounds, prog.doors = true, o.Doors, new(o.bounds()), o.Doors
	}
	prog.attr = os.ProcAttr{Dir: o.Dir, Env: env, Sys: attributes(len(p.doors) > 0)}
	started := make(chan error)
	go p.supervise(prog, o.Confine, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start native service: %w", err)
	}
	return p, nil
}

// Wait implements [runtime.Service].
func (p *Process) Wait(ctx context.Context) (runtime.Exit, error) {
	select {
	case <-p.done:
		return p.exit, nil
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
}

// Stop implements [runtime.Service]: SIGTERM to the group, and SIGKILL when
// the grace period or ctx is over. It fails only if the kernel does not manage
// to kill the service.
func (p *Process) Stop(ctx context.Context) error {
	p.terminate.Do(func() { p.signal(terminateGroup) })
	grace := time.NewTimer(p.grace)
	defer grace.Stop()
	select {
	case <-p.done:
		return nil
	case <-grace.C:
	case <-ctx.Done():
	}
	p.signal(killGroup)
	last := time.NewTimer(killTime)
	defer last.Stop()
	select {
	case <-p.done:
		return nil
	case <-last.C:
		return fmt.Errorf("stop native service: process %d is still there %s after it was killed",
			p.main.Pid, killTime)
	}
}

// signal sends to the group as long as its number is surely its own.
func (p *Process) signal(send func(*os.Process)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gone {
		send(p.main)
	}
}

// program is what the kernel is asked to execute.
type program struct {
	path string
	argv []string
	attr os.ProcAttr
	// bounds are what it gives itself; nil for none. doors lead to its cgroup.
	bounds *bounds
	doors  []*os.File
}

// supervise sees the process through from its start to the last byte of its
// output.
func (p *Process) supervise(prog program, confine func() error, started chan<- error) {
	// The kernel kills the child when the thread that made it ends, so that
	// thread must not end before the child.
	goruntime.LockOSThread()
	if confine == nil {
		defer goruntime.UnlockOSThread() // a thread that stays locked ends with its goroutine
	} else if err := confine(); err != nil {
		p.leave()
		started <- err
		return
	}

	out, err := p.prepare()
	if err != nil {
		p.leave()
		started <- err
		return
	}
	prog.attr.Files = out.files
	p.main, err = prog.start()
	out.handOver()
	if err != nil {
		out.drain()
		p.leave()
		started <- err
		return
	}
	started <- nil

	state := p.reap()
	out.drain()
	p.exit = exitOf(state)
	p.leave()
	close(p.done)
}

func (p *Process) prepare() (*output, error) {
	if p.alone {
		if err := adopt(); err != nil {
			return nil, fmt.Errorf("adopt orphans: %w", err)
		}
	}
	return openOutput(p.log)
}

// leave lets another service be alone.
func (p *Process) leave() {
	if p.alone {
		occupied.Store(false)
	}
}

// start waits for a file that is busy for a moment: one that was just written,
// when another process started meanwhile, which holds it open until it
// executes its own program.
func (g program) start() (*os.Process, error) {
	for try := 1; ; try++ {
		process, err := g.startOnce()
		if !errors.Is(err, syscall.ETXTBSY) || try == busyTries {
			return process, err
		}
		<-time.After(busyWait)
	}
}

func (g program) startOnce() (*os.Process, error) {
	if g.bounds != nil {
		return g.viaShim(*g.bounds, g.doors)
	}
	return os.StartProcess(g.path, g.argv, &g.attr)
}

// exitOf reads a state; nil means that somebody else reaped the process.
func exitOf(state *os.ProcessState) runtime.Exit {
	if state == nil {
		return runtime.Exit{Code: -1}
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return runtime.Exit{Code: -1, Signal: status.Signal().String(), TooLarge: tooLarge(status)}
	}
	return runtime.Exit{Code: state.ExitCode()}
}
