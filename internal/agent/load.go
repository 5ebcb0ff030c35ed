package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"nex"
	"nex/internal/guest"
	"nex/internal/runtime"
	"nex/internal/runtime/js"
	"nex/internal/runtime/native"
	"nex/internal/runtime/wasm"
)

// types are the workload types this agent runs.
func types() []nex.WorkloadType { return []nex.WorkloadType{nex.Native, nex.V8, nex.Wasm} }

// refusals begin what is wrong with an artifact, in the words of Nex 0.2.7.
var refusals = map[nex.WorkloadType]string{
	nex.Native: "Failed to validate workload",
	nex.V8:     "Failed to validate workload: failed to compile source for execution",
	nex.Wasm:   "Failed to validate workload: failed to compile module",
}

// refusal words the error of loading an artifact: it is a refusal if the
// artifact is to blame.
func refusal(t nex.WorkloadType, err error) error {
	if nex.CodeOf(err) == nex.Invalid {
		return fmt.Errorf("%s: %w", refusals[t], err)
	}
	return err
}

// loadFunction reads a function into memory; its file is of no use afterwards.
func (a *agent) loadFunction(ctx context.Context, d guest.Deploy, path string, log runtime.Log) (runtime.Function, error) {
	code, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read artifact: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return nil, fmt.Errorf("remove artifact: %w", err)
	}
	switch d.Type {
	case nex.V8:
		engine, err := pickEngine(d.Settings.Engine)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, js.LoadTimeout)
		defer cancel()
		defer a.overseer.back(a.overseer.begin(ctx, d.ID))
		return js.Load(ctx, engine, js.Options{
			Name: d.File, Code: code, Env: d.Environment,
			Namespace: d.Namespace, Workload: d.Name, ID: d.ID, Log: log, Host: host{a.server, d.ID},
			MemoryLimit: memory(d), MaxConcurrency: d.Settings.MaxConcurrency,
		})
	case nex.Wasm:
		return wasm.Load(ctx, wasm.Options{
			Name: d.File, Code: code, Env: d.Environment, Log: log,
			MemoryLimit: memory(d), MaxConcurrency: d.Settings.MaxConcurrency, CacheDir: a.cacheDir(d.Namespace), Host: host{a.server, d.ID},
		})
	}
	return nil, nex.Errorf(nex.Unsupported, "this agent runs no functions of type %q", d.Type)
}

// cacheDir keeps the compiled code of one tenant. What is in it is run: tenants
// must not share it.
func (a *agent) cacheDir(namespace string) string {
	if a.cfg.Cache == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(namespace))
	return filepath.Join(a.cfg.Cache, hex.EncodeToString(sum[:16]))
}

// memory is how many bytes an instance of a function may use.
func memory(d guest.Deploy) int64 { return int64(d.Settings.FunctionMemoryMiB) << 20 }

// startService starts an executable in a directory of its own, under its
// workload's name.
func (a *agent) startService(d guest.Deploy, path string, log runtime.Log) (runtime.Service, error) {
	if d.Type != nex.Native {
		return nil, nex.Errorf(nex.Unsupported, "this agent runs no services of type %q", d.Type)
	}
	bin, home := filepath.Join(filepath.Dir(path), "bin"), filepath.Join(filepath.Dir(path), "home")
	if err := errors.Join(os.Mkdir(bin, 0o700), os.Mkdir(home, 0o700)); err != nil {
		return nil, fmt.Errorf("make directories of the service: %w", err)
	}
	named := filepath.Join(bin, d.Name)
	if err := os.Rename(path, named); err != nil {
		return nil, fmt.Errorf("name executable: %w", err)
	}
	if a.cfg.Notice != "" {
		log(slog.LevelInfo, a.cfg.Notice)
	}
	if a.cfg.Limit != nil {
		if err := a.cfg.Limit(d.Settings.Resources); err != nil {
			return nil, err
		}
	}
	var restrict func() error
	if a.cfg.Confine != nil {
		restrict = func() error { return a.cfg.Confine(filepath.Dir(path)) }
	}
	return a.withHost(d, filepath.Dir(path), log, func(env map[string]string) (runtime.Service, error) {
		return native.Start(native.Options{
			Path: named, Dir: home, Args: d.Argv, Env: env, Static: d.Static, Log: log,
			Grace: d.Settings.StopGrace(), Confine: restrict, Alone: a.cfg.Alone, Doors: a.cfg.Doors, Resources: d.Settings.Resources,
		})
	})
}
