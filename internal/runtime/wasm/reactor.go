package wasm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"nex"
	"nex/internal/runtime"
)

// What modules export. A reactor exports invokeExport, allocExport and its
// memory; every other module is a command.
const (
	commandExport    = "_start"
	initializeExport = "_initialize"
	invokeExport     = "nex_invoke"
	allocExport      = "nex_alloc"
)

// failed is the bit of nex_invoke's result that makes it an error.
const failed = 1 << 63

// initialize runs what a reactor wants to have run once.
func (i *instance) initialize(ctx context.Context) error {
	return i.under(ctx, func() error {
		err := i.begun()
		if f := i.module.ExportedFunction(initializeExport); f != nil && err == nil {
			err = f.CallWithStack(i.ctx, nil)
		}
		i.end()
		return err
	})
}

// react serves one call of a reactor.
func (i *instance) react(t runtime.Trigger) error {
	m := i.module.Memory()
	size := len(t.Subject) + len(t.Payload)
	var stack [4]uint64
	stack[0] = uint64(size)
	if err := i.alloc.CallWithStack(i.ctx, stack[:1]); err != nil {
		return err
	}
	at := uint32(stack[0])
	if at == 0 && size > 0 {
		return i.defect("%s found no place for %d bytes", allocExport, size)
	}
	place, ok := m.Read(at, uint32(size))
	if !ok {
		return i.defect("%s returned a place outside of memory", allocExport)
	}
	copy(place[copy(place, t.Subject):], t.Payload)

	subject := uint32(len(t.Subject))
	stack = [4]uint64{uint64(at), uint64(subject), uint64(at + subject), uint64(uint32(len(t.Payload)))}
	if err := i.entry.CallWithStack(i.ctx, stack[:]); err != nil {
		return err
	}
	return i.result(m, stack[0])
}

// result fetches what nex_invoke returned.
func (i *instance) result(m api.Memory, packed uint64) error {
	at, size := uint32(packed>>32)&^(1<<31), uint32(packed)
	if size > maxReply {
		return errTooLarge
	}
	reply, ok := m.Read(at, size)
	if !ok {
		return i.defect("%s returned a reply outside of memory", invokeExport)
	}
	if packed&failed == 0 {
		i.reply.buf = slices.Clone(reply)
		return nil
	}
	text := strings.ToValidUTF8(string(reply[:min(size, maxLine)]), "\uFFFD")
	i.f.log(slog.LevelError, text)
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return nex.Errorf(nex.Exception, "%s", strings.ToValidUTF8(line[:min(len(line), maxLast)], ""))
}

// defect is a breach of the contract between a reactor and Nex. What the
// instance does next cannot be known, so it does nothing.
func (i *instance) defect(format string, args ...any) error {
	i.broken = true
	code := nex.Exception
	if i.memory.refused {
		code = nex.OutOfMemory
	}
	return nex.Errorf(code, format, args...)
}

// checkReactor refuses a reactor whose exports have other types than Nex
// calls.
func checkReactor(module wazero.CompiledModule) error {
	i32, i64 := api.ValueTypeI32, api.ValueTypeI64
	for _, want := range []struct {
		name            string
		params, results []api.ValueType
		signature       string
	}{
		{invokeExport, []api.ValueType{i32, i32, i32, i32}, []api.ValueType{i64}, "(i32, i32, i32, i32) -> i64"},
		{allocExport, []api.ValueType{i32}, []api.ValueType{i32}, "(i32) -> i32"},
		{initializeExport, nil, nil, "() -> ()"},
	} {
		def, ok := module.ExportedFunctions()[want.name]
		if !ok && want.name == initializeExport {
			continue
		}
		if !ok || !slices.Equal(def.ParamTypes(), want.params) || !slices.Equal(def.ResultTypes(), want.results) {
			return fmt.Errorf("is not a reactor for Nex: it must export the function %s %s", want.name, want.signature)
		}
	}
	if len(module.ExportedMemories()) == 0 {
		return errors.New("is not a reactor for Nex: it must export its memory")
	}
	return nil
}
