package quickjs

import (
	"context"
	"regexp"
	"slices"
	"unsafe"

	lib "modernc.org/libquickjs"

	"nex/internal/runtime/js"
)

// mayBeModule matches what every module contains. It also matches words in
// strings and comments, so it only decides whether there is a second try.
var mayBeModule = regexp.MustCompile(`\b(import|export)\b`)

// load runs the compiled prelude and then the script, until ctx ends.
func (i *isolate) load(ctx context.Context, prelude []byte, s js.Source) (err error) {
	defer i.enter(ctx)(&err)
	if err := i.loadPrelude(prelude, s.Info); err != nil {
		return err
	}
	result, err := i.evaluate(s)
	if err != nil {
		return err
	}
	i.fn = i.call(i.prelude.entry, undefined, result)
	if isException(i.fn) {
		return i.thrown()
	}
	if err := i.drain(); err != nil {
		return err
	}
	i.done()
	return nil
}

// compileOwn returns the bytecode of a script of ours.
func (i *isolate) compileOwn(name, code string) ([]byte, error) {
	script := i.compile(name, []byte(code), lib.MJS_EVAL_TYPE_GLOBAL)
	if isException(script) {
		return nil, i.thrown()
	}
	p := lib.XJS_WriteObject(i.tls, i.ctx, i.out, script, lib.MJS_WRITE_OBJ_BYTECODE)
	if p == 0 {
		return nil, i.thrown()
	}
	return slices.Clone(bytesAt(p, int(*(*lib.Tsize_t)(pointer(i.out))))), nil
}

// runOwn returns the value of a script of ours, from its bytecode.
func (i *isolate) runOwn(bytecode []byte) value {
	p := i.keep(unsafe.String(unsafe.SliceData(bytecode), len(bytecode)))
	if p == 0 {
		return lib.XJS_ThrowOutOfMemory(i.tls, i.ctx)
	}
	script := lib.XJS_ReadObject(i.tls, i.ctx, p, lib.Tsize_t(len(bytecode)), lib.MJS_READ_OBJ_BYTECODE)
	i.heap.put(p)
	if isException(script) {
		return exception
	}
	return lib.XJS_EvalFunction(i.tls, i.ctx, script) // takes script over
}

// loadPrelude runs the compiled prelude. Its failure is a defect, or for want
// of time or memory.
func (i *isolate) loadPrelude(prelude []byte, info string) error {
	boot := i.hold(i.runOwn(prelude))
	if isException(boot) {
		return i.thrown()
	}
	functions := i.hold(i.call(boot, undefined, i.hold(i.newHost()), i.hold(i.newString(info))))
	if isException(functions) {
		return i.thrown()
	}
	i.prelude.entry = i.property(functions, "entry")
	i.prelude.context = i.property(functions, "Context")
	i.prelude.settle = i.property(functions, "settle")
	i.prelude.encode = i.property(functions, "encode")
	i.prelude.tick = i.property(functions, "tick")
	i.prelude.next = i.property(functions, "next")
	i.prelude.explain = i.property(functions, "explain")
	if i.heap.exhausted {
		return js.ErrMemory
	}
	return nil
}

// evaluate runs the script and returns its last value, or the namespace of the
// module that it is.
func (i *isolate) evaluate(s js.Source) (value, error) {
	kind := int32(lib.MJS_EVAL_TYPE_GLOBAL)
	script := i.compile(s.Name, s.Code, kind)
	if isException(script) && !i.interrupted && !i.heap.exhausted && mayBeModule.Match(s.Code) {
		i.dropException()
		kind = lib.MJS_EVAL_TYPE_MODULE
		script = i.compile(s.Name, s.Code, kind)
	}
	if isException(script) {
		return undefined, i.thrown()
	}
	module := word(script)
	result := i.hold(lib.XJS_EvalFunction(i.tls, i.ctx, script)) // takes script over
	if kind == lib.MJS_EVAL_TYPE_GLOBAL {
		if isException(result) {
			return undefined, i.thrown()
		}
		return result, nil
	}
	if err := i.await(result); err != nil {
		return undefined, err
	}
	namespace := i.hold(lib.XJS_GetModuleNamespace(i.tls, i.ctx, module))
	if isException(namespace) {
		return undefined, i.thrown()
	}
	return namespace, nil
}

// await waits until the promise of a module is settled.
func (i *isolate) await(v value) error {
	for {
		_, err := i.finish(v)
		w, waits := err.(errWaits)
		if !waits {
			return err
		}
		if !i.helper.Wait(i.until, w.when/js.MaxCalls) {
			i.interrupted = true
			return js.ErrStopped
		}
		v = w.promise
	}
}

// compile returns the code as a script or module that can be evaluated, or an
// exception.
func (i *isolate) compile(name string, code []byte, kind int32) value {
	file := i.keep(name)
	text := i.keep(unsafe.String(unsafe.SliceData(code), len(code)))
	if file == 0 || text == 0 {
		return lib.XJS_ThrowOutOfMemory(i.tls, i.ctx)
	}
	v := lib.XJS_Eval(i.tls, i.ctx, text, lib.Tsize_t(len(code)), file, kind|lib.MJS_EVAL_FLAG_COMPILE_ONLY)
	i.heap.put(file)
	i.heap.put(text)
	return v
}
