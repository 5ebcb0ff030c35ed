package quickjs

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestRepaired(t *testing.T) {
	const bad = "\ufffd"
	tests := []struct{ in, want string }{
		{"plain é€🦊", "plain é€🦊"},
		{"\xff", bad},
		{"a\x80\x80b", "a" + bad + bad + "b"},
		{"\xe2\x82", bad},
		{"\xe2\x82a", bad + "a"},
		{"\xf0\x9f\xa6", bad},
		{"\xf0\x9f\xa6\xf0", bad + bad},
		{"\xc0\xaf", bad + bad},
		{"\xe0\x80\xaf", bad + bad + bad},
		{"\xed\xa0\x80", bad + bad + bad},
		{"\xf4\x90\x80\x80", bad + bad + bad + bad},
		{"\xf0\x80\x80\x41", bad + bad + bad + "A"},
		{"\ufffd", bad},
	}
	for _, tt := range tests {
		if got := repaired(tt.in); got != tt.want {
			t.Errorf("%q became %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzRepaired(f *testing.F) {
	f.Add("a\xff\xe2\x82")
	f.Fuzz(func(t *testing.T, text string) {
		got := repaired(text)
		if !utf8.ValidString(got) {
			t.Errorf("%q became %q, which is not UTF-8", text, got)
		}
		if utf8.ValidString(text) && got != text {
			t.Errorf("%q became %q", text, got)
		}
		if drop(got) != drop(strings.ToValidUTF8(text, "")) {
			t.Errorf("%q became %q: characters were lost", text, got)
		}
	})
}

func drop(text string) string { return strings.ReplaceAll(text, "\ufffd", "") }

func TestWithoutSurrogates(t *testing.T) {
	tests := []struct{ in, want string }{
		{"plain é€🦊", "plain é€🦊"},
		{"a\xed\xa0\x80b", "a\ufffdb"},
		{"\xed\xa0\x80\xed\xb0\x80", "\ufffd\ufffd"},
		{"\xed\xbf\xbf", "\ufffd"},
		{"\xed\x9f\xbf", "\ud7ff"},
	}
	for _, tt := range tests {
		if got := withoutSurrogates(tt.in); got != tt.want {
			t.Errorf("%q became %q, want %q", tt.in, got, tt.want)
		}
	}
}
