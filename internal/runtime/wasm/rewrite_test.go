package wasm

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"nex"
	"nex/internal/runtime"
)

// endless are bodies of _start that run for ever or nearly so.
var endless = map[string][]byte{
	"loop":  forever,
	"calls": {0x10, 1}, // function 1 calls itself twice, 60 deep
	"fill":  {0x03, 0x40, 0x41, 0, 0x41, 1, 0x41, 0x80, 0x80, 0x80, 0x20, 0xfc, 0x0b, 0, 0x0c, 0, 0x0b},
}

// TestCodeIsStopped stops code that never calls the host, also where no loop
// turns.
func TestCodeIsStopped(t *testing.T) {
	deep := []byte{0x20, 0, 0x04, 0x40, 0x20, 0, 0x41, 1, 0x6b, 0x10, 1, 0x20, 0, 0x41, 1, 0x6b, 0x10, 1, 0x0b}
	function := func(b []byte) []byte { return append(append([]byte{byte(len(b) + 2), 0}, b...), 0x0b) }
	for name, body := range endless {
		t.Run(name, func(t *testing.T) {
			if name == "calls" {
				body = append(number(60), body...)
			}
			code := tiny(section(typeSection, 2, 0x60, 0, 0, 0x60, 1, 0x7f, 0), section(functionSection, 2, 0, 1), memorySized(1024),
				section(exportSection, []byte("\x01\x06_start\x00\x00")...),
				section(codeSection, slices.Concat([]byte{2}, function(body), function(deep))...))
			f := mustLoad(t, Options{Code: code, Log: func(slog.Level, string) {}})
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if _, err := f.Invoke(ctx, runtime.Trigger{Subject: "a"}); nex.CodeOf(err) != nex.Timeout {
				t.Errorf("error %v, want a timeout", err)
			}
		})
	}
}

// TestManyWrites replies in twenty thousand writes of a few bytes.
func TestManyWrites(t *testing.T) {
	// loop: count the number at 20 up, reply with 16 to 80, again while it is less than 20,000
	k := keeper{body: slices.Concat([]byte{0x03, 0x40}, count(20), []byte{0x10, 3}, fetch(20), number(20_000), []byte{0x48, 0x0d, 0, 0x0b})}
	f := mustLoad(t, Options{Code: k.code(), Log: func(slog.Level, string) {}})
	for range 3 {
		got, err := invoke(t, f, "")
		if len(got) != 20_001*64 || err != nil {
			t.Errorf("reply of %d bytes, %v", len(got), err)
		}
	}
}

// TestRewriteDropsCustomSections shows that sections for debuggers go, and the
// names stay.
func TestRewriteDropsCustomSections(t *testing.T) {
	code := append(command(nil), section(customSection, []byte("\x0b.debug_info"+strings.Repeat("x", 100))...)...)
	p, err := prepare(code, 1<<20)
	if err != nil || strings.Contains(string(p.code), "debug") {
		t.Errorf("%q, %v", p.code, err)
	}
	if p, err = prepare(named(), 1<<20); err != nil || !strings.Contains(string(p.code), "echo") {
		t.Errorf("the names went: %q, %v", p.code, err)
	}
}

// FuzzRewrite rewrites modules that the engine takes as they are: it must take
// them afterwards too, and a program must end as it would have.
func FuzzRewrite(f *testing.F) {
	for _, k := range keepers() {
		f.Add(k.code())
	}
	for _, code := range [][]byte{command(nil, trap...), command(nil, divide...), named(), command([][]byte{memorySized(1)}, grow...), command(nil, forever...)} {
		f.Add(code)
	}
	if code, err := os.ReadFile(echoFunction); err == nil {
		f.Add(code)
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		const limit = 4 << 20
		code, err := confine(code, limit)
		if err != nil {
			return
		}
		want, ended, valid := original(t, code)
		fn, err := Load(t.Context(), Options{Name: "x", Code: code, MemoryLimit: limit, MaxConcurrency: 1, Log: func(slog.Level, string) {}})
		if !valid || !ended {
			if err == nil {
				_ = fn.Close(t.Context())
			}
			return
		}
		if err != nil {
			if errors.Is(err, errReserved) || nex.CodeOf(err) == nex.Invalid && strings.Contains(err.Error(), "reserved") {
				return
			}
			t.Fatalf("refused: %v", err)
		}
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			got, err := fn.Invoke(ctx, runtime.Trigger{Subject: "s"})
			cancel()
			if err == nil && string(got.Payload) != want {
				t.Errorf("reply %x, want %x", got.Payload, want)
			}
			if nex.CodeOf(err) == nex.Timeout {
				t.Errorf("%v, as it was it ended", err)
			}
		}
		if err := fn.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// original runs a command as it is. ended tells that it did, with status 0,
// before long.
func original(t *testing.T, code []byte) (reply string, ended, valid bool) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	engine := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfig().WithCloseOnContextDone(true).WithMemoryLimitPages(64))
	defer engine.Close(t.Context())
	if _, err := wasi_snapshot_preview1.Instantiate(t.Context(), engine); err != nil {
		t.Fatal(err)
	}
	module, err := engine.CompileModule(t.Context(), code)
	if err != nil {
		return "", false, false
	}
	if start, ok := module.ExportedFunctions()[commandExport]; !ok || len(start.ParamTypes())+len(start.ResultTypes()) > 0 {
		return "", false, false
	}
	var out strings.Builder
	i, err := engine.InstantiateModule(ctx, module, wazero.NewModuleConfig().WithArgs(program, "s").WithStdout(&out).WithStartFunctions())
	if err != nil {
		return "", false, false
	}
	_, err = i.ExportedFunction(commandExport).Call(ctx)
	if exit, ok := errors.AsType[*sys.ExitError](err); ok && exit.ExitCode() == 0 {
		err = nil
	}
	_, reactor := module.ExportedFunctions()[invokeExport]
	return out.String(), err == nil && !reactor, true
}
