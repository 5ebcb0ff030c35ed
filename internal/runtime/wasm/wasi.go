package wasm

import (
	"context"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	exits "github.com/tetratelabs/wazero/sys"
)

// provide gives the engine WASI. Three of the engine's own functions are
// replaced: two for the arguments, which change with each call of an instance,
// and the one that ends a program, which would close the instance.
func provide(ctx context.Context, engine wazero.Runtime) error {
	b := engine.NewHostModuleBuilder(wasi_snapshot_preview1.ModuleName)
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(b)
	i32 := []api.ValueType{api.ValueTypeI32}
	i32s := []api.ValueType{api.ValueTypeI32, api.ValueTypeI32}
	b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(argsGet), i32s, i32).Export("args_get")
	b.NewFunctionBuilder().WithGoModuleFunction(api.GoModuleFunc(argsSizesGet), i32s, i32).Export("args_sizes_get")
	b.NewFunctionBuilder().WithGoFunction(api.GoFunc(procExit), i32, nil).Export("proc_exit")
	_, err := b.Instantiate(experimental.WithFunctionListenerFactory(ctx, wearWatch{}))
	return err
}

// caller is the instance that called a host function.
func caller(ctx context.Context) *instance {
	i, _ := ctx.Value(instanceKey{}).(*instance)
	return i
}

// argsGet writes a table of pointers to the arguments, and the arguments, each
// with a zero behind it.
func argsGet(ctx context.Context, mod api.Module, stack []uint64) {
	table, text := uint32(stack[0]), uint32(stack[1])
	m := mod.Memory()
	args := caller(ctx).args()
	ok := len(caller(ctx).memory.buf) > 0
	for i := 0; ok && i < len(args); i++ {
		ok = m.WriteUint32Le(table, text) && m.WriteString(text, args[i]+"\x00")
		table += 4
		text += uint32(len(args[i]) + 1)
	}
	stack[0] = errno(ok)
}

func argsSizesGet(ctx context.Context, mod api.Module, stack []uint64) {
	count, size := uint32(stack[0]), uint32(stack[1])
	bytes := uint32(0)
	args := caller(ctx).args()
	for _, a := range args {
		bytes += uint32(len(a) + 1)
	}
	m := mod.Memory()
	stack[0] = errno(len(caller(ctx).memory.buf) > 0 && m.WriteUint32Le(count, uint32(len(args))) && m.WriteUint32Le(size, bytes))
}

func errno(ok bool) uint64 {
	if ok {
		return 0
	}
	return fault
}

// fault is how WASI says that an address is outside of memory.
const fault = 21

// procExit ends the program and leaves the instance open. The engine passes
// the panic on as the error of the call.
func procExit(_ context.Context, stack []uint64) {
	panic(exits.NewExitError(uint32(stack[0])))
}

// harmless are the functions of WASI after which the engine's view of an
// instance, its open files, is as it was.
var harmless = map[string]bool{
	"args_get": true, "args_sizes_get": true, "environ_get": true, "environ_sizes_get": true,
	"clock_res_get": true, "clock_time_get": true, "random_get": true, "poll_oneoff": true, "sched_yield": true,
	"fd_read": true, "fd_write": true, "fd_fdstat_get": true, "fd_filestat_get": true,
	"fd_prestat_get": true, "fd_prestat_dir_name": true, "proc_exit": true, "proc_raise": true,
}

// wearWatch marks instances whose files were closed, renumbered or otherwise
// changed: the next call must not find them so.
type wearWatch struct{}

// NewFunctionListener implements [experimental.FunctionListenerFactory].
func (w wearWatch) NewFunctionListener(def api.FunctionDefinition) experimental.FunctionListener {
	if names := def.ExportNames(); len(names) == 1 && harmless[names[0]] {
		return nil
	}
	return w
}

// Before implements [experimental.FunctionListener].
func (wearWatch) Before(context.Context, api.Module, api.FunctionDefinition, []uint64, experimental.StackIterator) {
}

// After implements [experimental.FunctionListener].
func (wearWatch) After(ctx context.Context, _ api.Module, _ api.FunctionDefinition, results []uint64) {
	if len(results) == 0 || results[0] == 0 {
		caller(ctx).worn = true
	}
}

// Abort implements [experimental.FunctionListener].
func (wearWatch) Abort(ctx context.Context, _ api.Module, _ api.FunctionDefinition, _ error) {
	caller(ctx).worn = true
}
