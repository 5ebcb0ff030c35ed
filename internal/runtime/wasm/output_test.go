package wasm

import (
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

func TestLines(t *testing.T) {
	full := strings.Repeat("x", maxLine)
	for name, c := range map[string]struct {
		text string
		want []string
		last string
	}{
		"nothing":            {"", nil, ""},
		"one":                {"a\n", []string{"a"}, "a"},
		"partial":            {"a\nb", []string{"a", "b"}, "b"},
		"blank lines":        {"a\n\n \n", []string{"a", "", " "}, "a"},
		"carriage returns":   {"a\r\nb\rc\r\n", []string{"a", "b\rc"}, "b\rc"},
		"as long as allowed": {full + "\nb\n", []string{full, "b"}, "b"},
		"longer":             {full + "y\n", []string{full, "y"}, "y"},
		"far longer":         {full + full + "\n", []string{full, full}, strings.Repeat("x", maxLast)},
	} {
		for _, step := range []int{1 << 20, 1, 7, maxLine, 1 + rand.IntN(1000)} {
			var log recorder
			l := lines{log: log.log, level: slog.LevelError}
			for rest := c.text; rest != ""; {
				n := min(step, len(rest))
				_, _ = l.Write([]byte(rest[:n])) // never fails
				rest = rest[n:]
			}
			l.flush()
			var got []string
			for _, r := range log.all() {
				got = append(got, strings.TrimPrefix(r, "ERROR "))
			}
			if !reflect.DeepEqual(got, c.want) || l.last != c.last {
				t.Errorf("%s in steps of %d: %.80q, last %.80q", name, step, got, l.last)
			}
		}
	}
}
