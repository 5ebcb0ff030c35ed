package wasm

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/sys"

	"nex/internal/runtime"
)

// program is argv[0] of every module.
const program = "nexfunction"

// instance is a module with memory of its own. It serves one call at a time
// and may change goroutines between calls.
type instance struct {
	f       *Function
	ctx     context.Context // leads host functions back to the instance
	module  api.Module
	memory  *memory
	start   api.Function // of the start section, or nil
	entry   api.Function // _start or nex_invoke
	alloc   api.Function // nex_alloc, or nil
	globals []api.MutableGlobal
	worn    bool // its files are not what they were at first
	broken  bool // a call ended in the middle of its code

	// One call's.
	trigger runtime.Trigger
	header  map[string][]string // of the reply
	stdin   bytes.Reader
	reply   reply
	stderr  lines
	stdout  lines // of reactors, whose standard output is no reply
	since   time.Time
	calling context.Context // of whoever waits for the code that runs
	answer  answer          // of a host service, not yet fetched

	mu      sync.Mutex
	cause   error // why it is being stopped
	stopped chan struct{}
	stop    api.MutableGlobal  // guarded by mu
	cancel  context.CancelFunc // ends the wait for a host service; guarded by mu, may be nil
}

// errStopped is the cause when the caller's context ended.
var errStopped = errors.New("stopped")

// instanceKey finds the instance in the context of host functions.
type instanceKey struct{}

// instanceContext is the context of everything an instance does. It never
// ends: code is stopped by other means.
type instanceContext struct {
	context.Context
	i *instance
}

func (c instanceContext) Value(key any) any {
	if key == (instanceKey{}) {
		return c.i
	}
	return c.Context.Value(key)
}

// instantiate makes an instance in its initial state. No code of the module
// has run.
func (f *Function) instantiate() (*instance, error) {
	i := &instance{
		f: f, memory: &memory{limit: f.memory}, stopped: make(chan struct{}), calling: context.Background(),
		stderr: lines{log: f.log, level: slog.LevelError}, stdout: lines{log: f.log, level: slog.LevelInfo},
	}
	i.reply.instance = i
	i.ctx = instanceContext{context.Background(), i}
	config := f.config.WithStdin(&i.stdin).WithStderr(&i.stderr).WithNanosleep(i.sleep)
	if f.reactor {
		config = config.WithStdout(&i.stdout)
	} else {
		config = config.WithStdout(&i.reply)
	}
	var err error
	if i.module, err = f.engine.InstantiateModule(experimental.WithMemoryAllocator(i.ctx, i.memory), f.module, config); err != nil {
		return nil, err
	}
	i.memory.first = uint64(len(i.memory.buf))
	if f.shared != nil && !f.reactor {
		// Memory that the system had no room to map is reset the slower way.
		if err := i.memory.adopt(f.shared); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			i.close()
			return nil, err
		}
	}
	i.bind()
	return i, nil
}

// bind looks up what the host uses of the module.
func (i *instance) bind() {
	global := func(name string) api.MutableGlobal { return i.module.ExportedGlobal(name).(api.MutableGlobal) }
	for _, name := range i.f.prepared.globals {
		i.globals = append(i.globals, global(name))
	}
	if i.f.prepared.starts {
		i.start = i.module.ExportedFunction(startExport)
	}
	if i.f.reactor {
		i.entry, i.alloc = i.module.ExportedFunction(invokeExport), i.module.ExportedFunction(allocExport)
	} else {
		i.entry = i.module.ExportedFunction(commandExport)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.stop = global(stopExport)
}

// close frees the instance.
func (i *instance) close() {
	_ = i.module.Close(i.ctx) // there is no file behind its descriptors
}

// interrupt stops the code that runs, for good: the instance is of no use
// afterwards. Only the first cause counts.
func (i *instance) interrupt(cause error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cause != nil {
		return
	}
	i.cause = cause
	close(i.stopped)
	i.stop.Set(1)
	if i.cancel != nil {
		i.cancel()
	}
}

// why tells why the instance was stopped, nil if it was not.
func (i *instance) why() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.cause
}

// under runs code of the instance until ctx ends.
func (i *instance) under(ctx context.Context, code func() error) error {
	release := context.AfterFunc(ctx, func() { i.interrupt(errStopped) })
	i.calling = ctx
	err := code()
	i.calling = context.Background()
	if !release() {
		i.interrupt(errStopped) // it is about to be: settle it before the instance can be given on
	}
	return err
}

// begin sets the instance up for a call.
func (i *instance) begin(t runtime.Trigger) {
	i.trigger = t
	i.stdin.Reset(t.Payload)
	i.stderr.last, i.stdout.last = "", ""
	i.memory.refused = false
}

// end forgets the caller's data, and returns the reply.
func (i *instance) end() runtime.Reply {
	i.stderr.flush()
	i.stdout.flush()
	i.stdin.Reset(nil)
	i.trigger = runtime.Trigger{}
	i.answer = answer{}
	out := runtime.Reply{Header: i.header, Payload: i.reply.buf}
	i.header, i.reply.buf = nil, nil
	return out
}

// run runs a command to its end. Exit status 0 is a nil error.
func (i *instance) run() error {
	err := i.begun()
	if err == nil {
		err = i.entry.CallWithStack(i.ctx, nil)
	}
	if exit, ok := errors.AsType[*sys.ExitError](err); ok && exit.ExitCode() == 0 {
		err = nil
	}
	return err
}

// begun runs the start section.
func (i *instance) begun() error {
	if i.start == nil {
		return nil
	}
	return i.start.CallWithStack(i.ctx, nil)
}

// args are those of the call that runs.
func (i *instance) args() []string { return []string{program, i.trigger.Subject} }

// reset puts the instance back to its initial state and reports whether it
// is: never after it was stopped or something went wrong inside.
func (i *instance) reset() bool {
	if !i.f.prepared.resets || i.worn || i.why() != nil || !i.memory.reset(i.module.Memory(), i.f.image) {
		return false
	}
	for n, g := range i.globals {
		g.Set(i.f.initial[n])
	}
	return true
}

// sleep ends early when the instance is stopped.
func (i *instance) sleep(ns int64) {
	timer := time.NewTimer(time.Duration(ns))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-i.stopped:
	}
}

// snapshot keeps what reset restores. i has not run any code.
func (f *Function) snapshot(i *instance) {
	if !f.prepared.resets {
		return
	}
	f.image = newImage(i.memory.buf, i.memory.touched())
	f.shared, _ = f.image.share(len(i.memory.buf)) // where it is not possible there are slower resets
	if f.shared != nil {
		_ = i.memory.adopt(f.shared) // likewise
	}
	for _, g := range i.globals {
		f.initial = append(f.initial, g.Get())
	}
}

// size is how many bytes an idle instance holds.
func (i *instance) size() uint64 { return uint64(len(i.memory.buf)) }
