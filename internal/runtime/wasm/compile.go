package wasm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/tetratelabs/wazero"

	"nex"
)

// compile makes f.engine and f.module, with the help of the cache directory if
// there is one. Trouble with the directory is told to the log and does not
// keep a function from running.
func (f *Function) compile(ctx context.Context, o Options) error {
	var trouble error
	if o.CacheDir != "" {
		if trouble = f.compileCached(ctx, o.CacheDir); trouble == nil {
			return nil
		}
	}
	err := f.compileWith(ctx, wazero.NewCompilationCache())
	switch {
	case ctx.Err() != nil:
		return errors.Join(fmt.Errorf("load wasm: %w", ctx.Err()), err)
	case errors.Is(err, errModule):
		return nex.Errorf(nex.Invalid, "%s %s", o.Name, firstLine(err))
	case err == nil && trouble != nil:
		o.Log(slog.LevelWarn, "compiled code cannot be kept: "+firstLine(trouble))
	}
	return err
}

// errModule says that the module is to blame.
var errModule = errors.New("is not a valid WebAssembly module")

func (f *Function) compileCached(ctx context.Context, dir string) error {
	e, known, err := openEntry(dir, f.prepared.code)
	if err != nil {
		return err
	}
	cache, err := e.engineCache()
	if err != nil {
		return err
	}
	err = f.compileWith(ctx, cache)
	if err == nil && !known {
		err = e.seal()
		if err == nil {
			err = prune(dir, maxCache, e)
		}
		if err != nil {
			f.log(slog.LevelWarn, "compiled code cannot be kept: "+firstLine(err))
		}
		return nil // it is compiled
	}
	if err != nil {
		return errors.Join(err, e.remove())
	}
	return nil
}

// compileWith makes the engine and the module. An error leaves nothing behind.
func (f *Function) compileWith(ctx context.Context, cache wazero.CompilationCache) error {
	engine := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCompilationCache(cache))
	module, err := build(ctx, engine, f.prepared.code)
	if err != nil {
		quiet := context.WithoutCancel(ctx)
		return errors.Join(err, engine.Close(quiet), cache.Close(quiet))
	}
	f.engine, f.cache, f.module = engine, cache, module
	return nil
}

// build turns a panic of the compiler into an error: a strange module must not
// end the process, where other functions run.
func build(ctx context.Context, engine wazero.Runtime, code []byte) (module wazero.CompiledModule, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: the compiler gave up: %v", errModule, r)
		}
	}()
	if err := provide(ctx, engine); err != nil {
		return nil, fmt.Errorf("provide WASI: %w", err)
	}
	if module, err = engine.CompileModule(ctx, code); err != nil {
		return nil, fmt.Errorf("%w: %w", errModule, err)
	}
	if wantsHost(module) {
		if err := offer(ctx, engine); err != nil {
			return nil, fmt.Errorf("provide host services: %w", err)
		}
	}
	return module, nil
}
