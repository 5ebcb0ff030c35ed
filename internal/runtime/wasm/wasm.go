// Package wasm runs WebAssembly functions: modules of WASI preview 1, compiled
// once. There are two kinds.
//
// A command exports _start. It reads the payload from standard input and the
// trigger's subject from its first argument, and writes the reply to standard
// output; standard error goes to the log. Every call finds the module in its
// initial state: memory and globals are put back after each reply, and where
// that is not enough the call gets a new instance.
//
// A reactor exports its memory and the functions
//
//	nex_alloc(size i32) -> i32
//	nex_invoke(subject, subject_size, payload, payload_size i32) -> i64
//
// and perhaps _initialize, which is called once. Each call asks nex_alloc for
// a place of size bytes, which stays the module's, writes the subject there
// and the payload behind it, and passes both to nex_invoke. That returns the
// reply's address in its upper 32 bits and the size in the lower, to be left
// alone until the next call; with the highest bit set they are the text of an
// error. Standard output and standard error go to the log. State stays from
// one call to the next, but there may be several instances, and none is kept
// for ever.
//
// Both kinds may import two functions of the module nex, by which they reach
// host services; docs/host-services.md describes them. While a module waits for
// an answer its instance is busy.
//
// A [Function] is safe for concurrent use. It gives user code real clocks,
// real randomness and its own environment, and never a file system, a socket
// or memory beyond its limit. It starts no goroutine that outlives Close.
package wasm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"nex"
	"nex/internal/runtime"
)

// linkTimeout bounds the trial instance that [Load] makes, whose start section
// may run code.
const linkTimeout = 10 * time.Second

// Options says what to load and under which limits. Code and Log are required.
type Options struct {
	Name           string            // the workload's name, for error texts
	Code           []byte            // the module
	Env            map[string]string // the environment of every call, keys unchanged
	MemoryLimit    int64             // bytes of linear memory a call may use; 0 means runtime.DefaultMemory
	MaxConcurrency int               // calls that run at once; 0 means four a CPU
	CacheDir       string            // keeps compiled code, for one tenant; "" means compile at every load
	Log            runtime.Log       // receives standard error and stack traces
	Host           runtime.Host      // answers what the module asks host services; nil means runtime.NoHost
}

// Function is a loaded module.
type Function struct {
	log      runtime.Log
	host     runtime.Host
	memory   uint64 // bytes one call may use
	cache    wazero.CompilationCache
	engine   wazero.Runtime
	prepared *prepared
	module   wazero.CompiledModule
	reactor  bool
	config   wazero.ModuleConfig // what all instances have in common
	image    image               // of the memory, for resets
	shared   *sharedImage        // the same as a file, or nil
	initial  []uint64            // values of the globals, for resets
	pool     *pool
	closing  sync.Once
}

var _ runtime.Function = (*Function)(nil)

// Load compiles a module and proves that it can start. Everything that is
// wrong with the module or its environment is a [nex.Error] with code Invalid.
// Compiling takes about a second for 2 MB, unless CacheDir knows the module.
func Load(ctx context.Context, o Options) (*Function, error) {
	if o.Log == nil {
		return nil, errors.New("load wasm: no log")
	}
	if o.Name == "" {
		o.Name = "the module"
	}
	if o.MemoryLimit <= 0 {
		o.MemoryLimit = runtime.DefaultMemory
	}
	if o.MaxConcurrency <= 0 {
		o.MaxConcurrency = 4 * goruntime.NumCPU()
	}
	if o.Host == nil {
		o.Host = runtime.NoHost{}
	}
	p, err := prepare(o.Code, uint64(o.MemoryLimit))
	if err != nil {
		return nil, nex.Errorf(nex.Invalid, "%s %v", o.Name, err)
	}
	config, err := baseConfig(o.Env)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("load wasm: %w", err)
	}
	f := &Function{log: o.Log, host: o.Host, memory: uint64(o.MemoryLimit), prepared: p, config: config}
	f.pool = newPool(o.MaxConcurrency, f.fresh, f.renew)
	if err := f.compile(ctx, o); err != nil {
		return nil, err
	}
	if err := f.link(ctx, o.Name); err != nil {
		return nil, errors.Join(err, f.free(context.WithoutCancel(ctx)))
	}
	return f, nil
}

// prepare makes of a module what is compiled.
func prepare(code []byte, memory uint64) (*prepared, error) {
	code, err := confine(code, memory)
	if err != nil {
		return nil, err
	}
	return rewrite(code)
}

// Close implements [runtime.Function]. Calls that still run when ctx ends are
// stopped.
func (f *Function) Close(ctx context.Context) (err error) {
	f.closing.Do(func() {
		f.pool.close(ctx)
		err = f.free(context.WithoutCancel(ctx))
	})
	return err
}

// free gives everything back. No call runs any more.
func (f *Function) free(ctx context.Context) error {
	err := errors.Join(f.engine.Close(ctx), f.cache.Close(ctx))
	if f.shared != nil {
		err = errors.Join(err, f.shared.close())
	}
	return err
}

// link checks what the module wants and instantiates it once, so that what
// cannot work fails at load and not at the first call.
func (f *Function) link(ctx context.Context, name string) error {
	if err := f.check(); err != nil {
		return nex.Errorf(nex.Invalid, "%s %v", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	i, err := f.trial(ctx)
	if err != nil && !errors.Is(context.Cause(ctx), context.Canceled) {
		return nex.Errorf(nex.Invalid, "%s cannot start: %s", name, firstLine(err))
	}
	if err != nil {
		return fmt.Errorf("load wasm: %w", ctx.Err())
	}
	if i != nil && !f.pool.push(i) {
		i.close()
	}
	return nil
}

// trial makes the first instance and runs what runs before the first call.
func (f *Function) trial(ctx context.Context) (*instance, error) {
	i, err := f.instantiate()
	if err != nil {
		return nil, err
	}
	f.snapshot(i)
	if f.reactor {
		err = i.initialize(ctx)
	} else if err = i.under(ctx, i.begun); err == nil {
		i.end()
		if f.prepared.starts && !i.reset() {
			i.close()
			return nil, nil
		}
	}
	if err != nil {
		i.close()
		return nil, err
	}
	return i, nil
}

// fresh makes an instance for a call that found none idle.
func (f *Function) fresh(ctx context.Context) (*instance, error) {
	i, err := f.instantiate()
	if err == nil && f.reactor {
		if err = i.initialize(ctx); err != nil {
			i.close()
		}
	}
	if err != nil {
		return nil, f.unready(ctx, err)
	}
	return i, nil
}

// unready turns an error that kept an instance from starting, which the first
// one did, into the caller's.
func (f *Function) unready(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nex.Errorf(nex.Timeout, "the function was stopped while it started")
	}
	f.log(slog.LevelError, err.Error())
	return nex.Errorf(nex.Exception, "cannot start: %s", firstLine(err))
}

// check refuses modules that Nex cannot call.
func (f *Function) check() error {
	module := f.module
	_, f.reactor = module.ExportedFunctions()[invokeExport]
	if f.reactor {
		if err := checkReactor(module); err != nil {
			return err
		}
	} else if start, ok := module.ExportedFunctions()[commandExport]; !ok || len(start.ParamTypes())+len(start.ResultTypes()) > 0 {
		return errors.New("is neither a WASI command nor a reactor for Nex: it exports no _start function; " +
			"build a program with a main function for wasip1, or export nex_invoke")
	}
	for _, def := range module.ImportedFunctions() {
		from, name, _ := def.Import()
		if known := f.engine.Module(from); known == nil || known.ExportedFunctionDefinitions()[name] == nil {
			return fmt.Errorf("imports the function %s.%s, which does not exist here: Nex offers WASI preview 1 (%s) "+
				"and host services (%s) only", from, name, wasi_snapshot_preview1.ModuleName, hostModule)
		}
	}
	for _, def := range module.ImportedMemories() {
		from, name, _ := def.Import()
		return fmt.Errorf("imports the memory %s.%s: it must bring its own", from, name)
	}
	return nil
}

// baseConfig holds what all calls of one function have in common.
func baseConfig(env map[string]string) (wazero.ModuleConfig, error) {
	c := wazero.NewModuleConfig().
		WithName("").         // anonymous: any number of instances at once
		WithStartFunctions(). // calls run _start themselves
		WithSysWalltime().
		WithSysNanotime().
		WithRandSource(rand.Reader)
	for _, key := range slices.Sorted(maps.Keys(env)) {
		if key == "" || strings.ContainsAny(key, "=\x00") || strings.Contains(env[key], "\x00") {
			return nil, nex.Errorf(nex.Invalid, "environment variable %q cannot be passed on", key)
		}
		c = c.WithEnv(key, env[key])
	}
	return c, nil
}

// firstLine returns the reason of an engine error without its stack trace.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return strings.TrimSuffix(strings.TrimPrefix(line, "wasm error: "), " (recovered by wazero)")
}
