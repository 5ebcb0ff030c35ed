package quickjs

import (
	"time"
	"unicode/utf8"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/libquickjs"
)

// hostFunction is the shape of a Go function that scripts call.
type hostFunction = func(tls *libc.TLS, ctx uintptr, this value, argc int32, argv uintptr) value

// newHost returns the object whose functions the prelude calls.
func (i *isolate) newHost() value {
	host := lib.XJS_NewObject(i.tls, i.ctx)
	for name, f := range map[string]hostFunction{
		"print": i.hostPrint, "ask": i.hostAsk, "now": i.hostNow, "load": i.hostLoad, "header": i.hostHeader,
		"encode": i.hostEncode, "decode": i.hostDecode,
	} {
		fn := lib.XJS_NewCFunction2(i.tls, i.ctx, hook(i, f), i.pass(name), hostArgs, lib.EJS_CFUNC_generic, 0)
		lib.XJS_SetPropertyStr(i.tls, i.ctx, host, i.pass(name), fn) // takes fn over
	}
	return host
}

// hostArgs is the number of arguments that a host function can rely on: those
// that are missing are undefined.
const hostArgs = 2

func arguments(argv uintptr) []value { return unsafe.Slice((*value)(pointer(argv)), hostArgs) }

// hostPrint is host.print(level, text).
func (i *isolate) hostPrint(_ *libc.TLS, _ uintptr, _ value, _ int32, argv uintptr) value {
	args := arguments(argv)
	text, ok := i.text(args[1])
	if !ok {
		return exception
	}
	i.print(int(integer(args[0])), text)
	return undefined
}

// hostAsk is host.ask(what, array).
func (i *isolate) hostAsk(_ *libc.TLS, _ uintptr, _ value, _ int32, argv uintptr) value {
	args := arguments(argv)
	what, ok := i.text(args[0])
	if !ok {
		return exception
	}
	input, err := i.view(args[1])
	if err != nil {
		return undefined
	}
	answer := i.helper.Ask(i.until, what, input)
	if answer == nil {
		return undefined
	}
	return i.newBytes(answer)
}

// hostNow is host.now().
func (i *isolate) hostNow(_ *libc.TLS, _ uintptr, _ value, _ int32, _ uintptr) value {
	return newFloat(float64(time.Since(i.born)) / float64(time.Millisecond))
}

// hostLoad is host.load(part).
func (i *isolate) hostLoad(_ *libc.TLS, _ uintptr, _ value, _ int32, argv uintptr) value {
	name, ok := i.text(arguments(argv)[0])
	if !ok {
		return exception
	}
	return i.runOwn(i.library[name])
}

// hostHeader is host.header(text).
func (i *isolate) hostHeader(_ *libc.TLS, _ uintptr, _ value, _ int32, argv uintptr) value {
	text, ok := i.text(arguments(argv)[0])
	if !ok {
		return exception
	}
	i.header = text
	return undefined
}

// hostEncode is host.encode(string).
func (i *isolate) hostEncode(_ *libc.TLS, _ uintptr, _ value, _ int32, argv uintptr) value {
	text, ok := i.text(arguments(argv)[0])
	if !ok {
		return exception
	}
	return i.newBytes(unsafe.Slice(unsafe.StringData(text), len(text)))
}

// hostDecode is host.decode(array, fatal).
func (i *isolate) hostDecode(_ *libc.TLS, _ uintptr, _ value, _ int32, argv uintptr) value {
	args := arguments(argv)
	b, err := i.view(args[0])
	if err != nil {
		return undefined
	}
	if utf8.Valid(b) {
		return lib.XJS_NewStringLen(i.tls, i.ctx, addressOf(b), lib.Tsize_t(len(b)))
	}
	if lib.XJS_ToBool(i.tls, i.ctx, args[1]) != 0 {
		return undefined
	}
	return i.newString(unsafe.String(unsafe.SliceData(b), len(b)))
}

// addressOf returns where b is, which must be C memory or empty.
func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// refuseImport is the module loader: there is none.
func (i *isolate) refuseImport(tls *libc.TLS, ctx, name, _ uintptr) uintptr {
	bp := tls.Alloc(16)
	defer tls.Free(16)
	lib.XJS_ThrowReferenceError(tls, ctx, i.importFormat, libc.VaList(bp, name))
	return 0
}
