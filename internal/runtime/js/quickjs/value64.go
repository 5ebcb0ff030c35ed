//go:build !(386 || arm)

package quickjs

import (
	"unsafe"

	lib "modernc.org/libquickjs"
)

// On 64-bit platforms a value is a word and a tag.

const valueSize = unsafe.Sizeof(value{})

var (
	undefined = value{Ftag: lib.EJS_TAG_UNDEFINED}
	exception = value{Ftag: lib.EJS_TAG_EXCEPTION}
)

func tag(v value) int32 { return int32(v.Ftag) }

// word returns the pointer that v holds.
func word(v value) uintptr { return *(*uintptr)(unsafe.Pointer(&v)) }

func newFloat(n float64) (v value) {
	*(*float64)(unsafe.Pointer(&v)) = n
	v.Ftag = lib.EJS_TAG_FLOAT64
	return v
}

// integer returns the value of v, which is one of the tag int.
func integer(v value) int32 { return int32(*(*uint64)(unsafe.Pointer(&v))) }
