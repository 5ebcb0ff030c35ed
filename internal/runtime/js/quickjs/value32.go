//go:build 386 || arm

package quickjs

import (
	"math"
	"unsafe"

	lib "modernc.org/libquickjs"
)

// On 32-bit platforms a value is a double, whose NaNs hold the tag and the
// word of everything else.

const (
	valueSize   = unsafe.Sizeof(value(0))
	floatAddend = (0x7ff80000 - lib.EJS_TAG_FIRST + 1) << 32
)

const (
	undefined value = lib.EJS_TAG_UNDEFINED << 32
	exception value = lib.EJS_TAG_EXCEPTION << 32
)

func tag(v value) int32 {
	t := int32(v >> 32)
	if uint32(t-lib.EJS_TAG_FIRST) >= uint32(lib.EJS_TAG_FLOAT64-lib.EJS_TAG_FIRST) {
		return lib.EJS_TAG_FLOAT64
	}
	return t
}

// word returns the pointer that v holds.
func word(v value) uintptr { return uintptr(v) }

// newFloat returns n, which must not be a NaN.
func newFloat(n float64) value { return value(math.Float64bits(n)) - floatAddend }

// integer returns the value of v, which is one of the tag int.
func integer(v value) int32 { return int32(v) }
