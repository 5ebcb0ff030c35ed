// Package wasm runs WebAssembly functions: WASI preview 1 commands, compiled
// once and started afresh for every call, so no state passes from one call to
// the next. A command reads the payload from standard input and the trigger's
// subject from its first argument, and writes the reply to standard output;
// standard error goes to the log.
//
// A [Function] is safe for concurrent use. It gives user code real clocks,
// real randomness and its own environment, and never a file system, a socket
// or memory beyond its limit. It starts no goroutine that outlives a call.
package wasm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/experimental"
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
	CacheDir       string            // keeps compiled code, made with mode 0700; "" means compile at every load
	Log            runtime.Log       // receives standard error and stack traces
}

// Function is a loaded WASI command.
type Function struct {
	log     runtime.Log
	memory  uint64 // bytes one call may use
	cache   wazero.CompilationCache
	engine  wazero.Runtime
	module  wazero.CompiledModule
	config  wazero.ModuleConfig // what all calls have in common
	gate    *gate
	closing sync.Once
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
	code, err := confine(o.Code, uint64(o.MemoryLimit))
	if err != nil {
		return nil, nex.Errorf(nex.Invalid, "%s %v", o.Name, err)
	}
	config, err := baseConfig(o.Env)
	if err != nil {
		return nil, err
	}
	cache, err := openCache(o.CacheDir)
	if err != nil {
		return nil, fmt.Errorf("open compilation cache: %w", err)
	}
	f := &Function{
		log:    o.Log,
		memory: uint64(o.MemoryLimit),
		cache:  cache,
		engine: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().
			WithCloseOnContextDone(true).
			WithCompilationCache(cache)),
		config: config,
		gate:   newGate(o.MaxConcurrency),
	}
	if err := f.link(ctx, o.Name, code); err != nil {
		return nil, errors.Join(err, f.free(context.WithoutCancel(ctx)))
	}
	return f, nil
}

// Close implements [runtime.Function]. Calls that still run when ctx ends are
// stopped.
func (f *Function) Close(ctx context.Context) (err error) {
	f.closing.Do(func() {
		f.gate.shut(ctx)
		err = f.free(context.WithoutCancel(ctx))
	})
	return err
}

// free gives everything back. No call runs any more.
func (f *Function) free(ctx context.Context) error {
	return errors.Join(f.engine.Close(ctx), f.cache.Close(ctx))
}

// link compiles code and instantiates it once without running it, so that
// what cannot work fails at load and not at the first call.
func (f *Function) link(ctx context.Context, name string, code []byte) error {
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, f.engine); err != nil {
		return fmt.Errorf("provide WASI: %w", err)
	}
	module, err := f.compile(ctx, code)
	if err != nil {
		return nex.Errorf(nex.Invalid, "%s is not a valid WebAssembly module: %s", name, firstLine(err))
	}
	if err := f.check(module); err != nil {
		return nex.Errorf(nex.Invalid, "%s %v", name, err)
	}
	trialCtx, cancel := context.WithTimeout(ctx, linkTimeout)
	defer cancel()
	trialCtx = experimental.WithMemoryAllocator(trialCtx, &memory{limit: f.memory})
	trial, err := f.engine.InstantiateModule(trialCtx, module, f.config)
	if ctx.Err() != nil {
		return fmt.Errorf("load wasm: %w", ctx.Err())
	}
	if err != nil {
		return nex.Errorf(nex.Invalid, "%s cannot start: %s", name, firstLine(err))
	}
	f.module = module
	return trial.Close(ctx)
}

// compile turns a panic of the compiler into an error: a strange module must
// not end the process, where other functions run.
func (f *Function) compile(ctx context.Context, code []byte) (module wazero.CompiledModule, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the compiler gave up: %v", r)
		}
	}()
	return f.engine.CompileModule(ctx, code)
}

// check refuses modules that are not WASI preview 1 commands.
func (f *Function) check(module wazero.CompiledModule) error {
	start, ok := module.ExportedFunctions()["_start"]
	if !ok || len(start.ParamTypes())+len(start.ResultTypes()) > 0 {
		return errors.New("is not a WASI command: it exports no _start function; " +
			"build a program with a main function for wasip1, not a library or reactor")
	}
	wasi := f.engine.Module(wasi_snapshot_preview1.ModuleName).ExportedFunctionDefinitions()
	for _, def := range module.ImportedFunctions() {
		from, name, _ := def.Import()
		if _, ok := wasi[name]; !ok || from != wasi_snapshot_preview1.ModuleName {
			return fmt.Errorf("imports the function %s.%s, which does not exist here: "+
				"Nex offers WASI preview 1 (%s) only", from, name, wasi_snapshot_preview1.ModuleName)
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
		WithStartFunctions(). // the call runs _start itself
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

// openCache returns a cache of compiled code on disk, or in memory for "".
func openCache(dir string) (wazero.CompilationCache, error) {
	if dir == "" {
		return wazero.NewCompilationCache(), nil
	}
	return wazero.NewCompilationCacheWithDir(dir)
}

// firstLine returns the reason of an engine error without its stack trace.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return strings.TrimPrefix(line, "wasm error: ")
}
