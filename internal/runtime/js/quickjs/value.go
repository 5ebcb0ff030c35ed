package quickjs

import (
	"errors"
	"strings"
	"unicode/utf8"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/libquickjs"

	"nex/internal/runtime/js"
)

// value is a JavaScript value. Unless a function says otherwise, a value that
// it returns is its caller's to hold or release, and one that it is given
// stays its caller's.
type value = lib.TJSValue

// pointer returns the address p as a pointer. p must be C memory: the
// collector does not follow it.
func pointer(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }

// bytesAt returns the n bytes of C memory at p, without copying them.
func bytesAt(p uintptr, n int) []byte {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(pointer(p)), n)
}

// hook returns the address under which the engine can call the Go function f.
// i keeps f reachable as long as it lives.
func hook[F any](i *isolate, f F) uintptr {
	i.hooks = append(i.hooks, f)
	return *(*uintptr)(unsafe.Pointer(&f))
}

func isException(v value) bool { return tag(v) == lib.EJS_TAG_EXCEPTION }
func isObject(v value) bool    { return tag(v) == lib.EJS_TAG_OBJECT }

func isString(v value) bool {
	return tag(v) == lib.EJS_TAG_STRING || tag(v) == lib.EJS_TAG_STRING_ROPE
}

func (i *isolate) release(v value) { lib.XFreeValue(i.tls, i.ctx, v) }

// call runs fn on args.
func (i *isolate) call(fn, this value, args ...value) value {
	copy(i.arguments(), args)
	return lib.XJS_Call(i.tls, i.ctx, fn, this, int32(len(args)), i.argv)
}

// construct runs new constructor(...args).
func (i *isolate) construct(constructor value, args ...value) value {
	copy(i.arguments(), args)
	return lib.XJS_CallConstructor(i.tls, i.ctx, constructor, int32(len(args)), i.argv)
}

// arguments returns where the arguments of the next call from Go go.
func (i *isolate) arguments() []value { return unsafe.Slice((*value)(pointer(i.argv)), maxArgs) }

// property returns a property of object that is known to exist.
func (i *isolate) property(object value, name string) value {
	return lib.XJS_GetPropertyStr(i.tls, i.ctx, object, i.pass(name))
}

// pass copies text to C memory, followed by NUL. It stays there until the next
// pass. It returns 0 where the memory limit forbids it.
func (i *isolate) pass(text string) uintptr {
	if need := len(text) + 1; need > i.roomSize {
		if i.room != 0 {
			i.heap.put(i.room)
		}
		i.roomSize = 0
		if i.room = i.heap.get(need); i.room == 0 {
			return 0
		}
		i.roomSize = i.heap.size(i.room)
	}
	room := bytesAt(i.room, len(text)+1)
	copy(room, text)
	room[len(text)] = 0
	return i.room
}

// newString returns a string value. Bytes that are not UTF-8 become U+FFFD.
func (i *isolate) newString(text string) value {
	if !utf8.ValidString(text) {
		text = repaired(text)
	}
	p := i.pass(text)
	if p == 0 {
		return lib.XJS_ThrowOutOfMemory(i.tls, i.ctx)
	}
	return lib.XJS_NewStringLen(i.tls, i.ctx, p, lib.Tsize_t(len(text)))
}

// text returns the string that v is or converts to. ok is false when the
// conversion threw.
func (i *isolate) text(v value) (text string, ok bool) {
	p := lib.XJS_ToCStringLen2(i.tls, i.ctx, i.out, v, 0)
	if p == 0 {
		return "", false
	}
	b := bytesAt(p, int(*(*lib.Tsize_t)(pointer(i.out))))
	text = string(b)
	lib.XJS_FreeCString(i.tls, i.ctx, p)
	return withoutSurrogates(text), true
}

// newBytes returns a Uint8Array with a copy of b.
func (i *isolate) newBytes(b []byte) value {
	p := lib.Xjs_malloc(i.tls, i.ctx, lib.Tsize_t(len(b)))
	if p == 0 {
		return exception
	}
	copy(bytesAt(p, len(b)), b)
	buffer := lib.XJS_NewArrayBuffer(i.tls, i.ctx, p, lib.Tsize_t(len(b)), i.freeBuffer, 0, 0)
	if isException(buffer) {
		lib.Xjs_free(i.tls, i.ctx, p)
		return exception
	}
	args := i.arguments()
	args[0], args[1], args[2] = buffer, undefined, undefined
	array := lib.XJS_NewTypedArray(i.tls, i.ctx, 3, i.argv, lib.EJS_TYPED_ARRAY_UINT8)
	i.release(buffer)
	return array
}

func freeBuffer(tls *libc.TLS, rt, _, p uintptr) { lib.Xjs_free_rt(tls, rt, p) }

// errNoBytes tells that the memory of an array is gone.
var errNoBytes = errors.New("its buffer is detached")

// isBuffer tells an ArrayBuffer, shared or not, from everything else.
func isBuffer(class lib.TJSClassID) bool {
	return class == lib.EJS_CLASS_ARRAY_BUFFER || class == lib.EJS_CLASS_SHARED_ARRAY_BUFFER
}

// isArray tells a typed array from everything else.
func isArray(class lib.TJSClassID) bool {
	return class >= lib.EJS_CLASS_UINT8C_ARRAY && class <= lib.EJS_CLASS_FLOAT64_ARRAY
}

// isBytes reports whether v is a value that view takes.
func (i *isolate) isBytes(v value) bool {
	class := lib.XJS_GetClassID(i.tls, v)
	return isBuffer(class) || isArray(class)
}

// view returns the bytes of an ArrayBuffer or typed array, without copying
// them: they are gone as soon as code runs or v is released.
func (i *isolate) view(v value) ([]byte, error) {
	if isBuffer(lib.XJS_GetClassID(i.tls, v)) {
		return i.buffer(v)
	}
	out := unsafe.Slice((*lib.Tsize_t)(pointer(i.out)), 3)
	size := unsafe.Sizeof(out[0])
	buffer := lib.XJS_GetTypedArrayBuffer(i.tls, i.ctx, v, i.out+size, i.out+2*size, 0)
	if isException(buffer) {
		i.dropException()
		return nil, errNoBytes
	}
	b, err := i.buffer(buffer)
	i.release(buffer) // v still has it
	if err != nil {
		return nil, err
	}
	return b[out[1] : out[1]+out[2]], nil
}

// buffer returns the bytes of an ArrayBuffer, without copying them.
func (i *isolate) buffer(v value) ([]byte, error) {
	p := lib.XJS_GetArrayBuffer(i.tls, i.ctx, i.out, v)
	if p == 0 && lib.XJS_HasException(i.tls, i.ctx) != 0 {
		i.dropException()
		return nil, errNoBytes
	}
	return bytesAt(p, int(*(*lib.Tsize_t)(pointer(i.out)))), nil
}

// dropException forgets the pending exception.
func (i *isolate) dropException() { i.release(lib.XJS_GetException(i.tls, i.ctx)) }

// thrown takes the pending exception and says how the code ended: it was
// stopped, met the memory limit, or threw.
func (i *isolate) thrown() error {
	exc := i.hold(lib.XJS_GetException(i.tls, i.ctx))
	switch {
	case i.interrupted:
		return js.ErrStopped
	case i.heap.exhausted:
		return js.ErrMemory
	}
	v := i.hold(i.call(i.prelude.explain, undefined, exc))
	if isException(v) {
		i.dropException()
		switch {
		case i.interrupted:
			return js.ErrStopped
		case i.heap.exhausted:
			return js.ErrMemory
		}
		return &js.Thrown{Message: "an exception that cannot be shown"}
	}
	text, _ := i.text(v)
	message, rest, _ := strings.Cut(text, "\x00")
	where, stack, _ := strings.Cut(rest, "\x00")
	return &js.Thrown{Message: message, Where: where, Stack: stack}
}
