package quickjs

import (
	"strings"
	"unicode/utf8"
)

// repaired returns text with U+FFFD for every maximal part of a sequence that
// is not UTF-8, as the Encoding Standard has it.
func repaired(text string) string {
	var b strings.Builder
	b.Grow(len(text) + 16)
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		if r == utf8.RuneError && n == 1 {
			n = brokenLen(text)
		}
		b.WriteRune(r)
		text = text[n:]
	}
	return b.String()
}

// brokenLen returns how many bytes at the start of text, which is no valid
// sequence, are one error: the longest start of a valid sequence, or one byte.
func brokenLen(text string) int {
	lead, low, high := text[0], byte(0x80), byte(0xbf)
	var want int
	switch {
	case lead >= 0xc2 && lead <= 0xdf:
		want = 2
	case lead >= 0xe0 && lead <= 0xef:
		want = 3
	case lead >= 0xf0 && lead <= 0xf4:
		want = 4
	default:
		return 1
	}
	switch lead {
	case 0xe0:
		low = 0xa0
	case 0xed:
		high = 0x9f
	case 0xf0:
		low = 0x90
	case 0xf4:
		high = 0x8f
	}
	n := 1
	for n < want && n < len(text) && text[n] >= low && text[n] <= high {
		low, high = 0x80, 0xbf
		n++
	}
	return n
}

// withoutSurrogates returns text, which the engine made, with U+FFFD for each
// surrogate that has no partner. The engine writes those as three bytes that
// are not UTF-8.
func withoutSurrogates(text string) string {
	if utf8.ValidString(text) {
		return text
	}
	var b strings.Builder
	b.Grow(len(text))
	for len(text) > 0 {
		r, n := utf8.DecodeRuneInString(text)
		if r == utf8.RuneError && n == 1 && len(text) >= 3 && text[0] == 0xed {
			n = 3
		}
		b.WriteRune(r)
		text = text[n:]
	}
	return b.String()
}
