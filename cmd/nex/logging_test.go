package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"time"
)

// newYear is the time of the records in these tests.
var newYear = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)

// logAt passes one record of newYear to the logger's handler.
func logAt(t *testing.T, log *slog.Logger, level slog.Level, message string, args ...any) {
	t.Helper()
	if !log.Enabled(t.Context(), level) {
		return
	}
	r := slog.NewRecord(newYear, level, message, 0)
	r.Add(args...)
	if err := log.Handler().Handle(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// lineOf returns what a logger writes to stdout for one info record.
func lineOf(t *testing.T, o logOptions, message string, args ...any) string {
	t.Helper()
	var out bytes.Buffer
	log, err := newLogger(o, &out, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	logAt(t, log, slog.LevelInfo, message, args...)
	return out.String()
}

func TestLogLine(t *testing.T) {
	tests := map[string]struct {
		message string
		args    []any
		want    string // after the time
	}{
		"plain":             {"Node is up", []any{"id", "NABC", "n", 3}, "Node is up id=NABC n=3"},
		"space":             {"m", []any{"k", "a b"}, `m k="a b"`},
		"quote":             {"m", []any{"k", `a"b`}, `m k="a\"b"`},
		"empty":             {"m", []any{"k", ""}, `m k=""`},
		"equals":            {"m", []any{"k", "a=b"}, `m k=a=b`},
		"backslash":         {"m", []any{"k", `C:\x`}, `m k=C:\x`},
		"emoji":             {"🚀 Workload 'größe' accepted", []any{"k", "日本"}, "🚀 Workload 'größe' accepted k=日本"},
		"line ends":         {"a\nb\r\n", []any{"k", "c\nd"}, `a\nb\r\n k="c\nd"`},
		"terminal commands": {"\x1b[2Jgone", []any{"k", "\x1b]0;x\a"}, `\x1b[2Jgone k="\x1b]0;x\a"`},
		"eight bit control": {"a\u009b31m", []any{"k", "\u0085"}, `a\u009b31m k="\u0085"`},
		"right to left":     {"a\u202eb", []any{"k", "\u2066"}, `a\u202eb k="\u2066"`},
		"broken UTF-8":      {"a\xffb", []any{"k", "\xc3"}, `a\xffb k="\xc3"`},
		"replacement rune":  {"a\ufffdb", nil, "a\ufffdb"},
		"hostile key":       {"m", []any{"a b\n", 1}, `m "a b\n"=1`},
		"group":             {"m", []any{slog.Group("a", "x", 1, slog.Group("b", "y", 2), slog.Group("", "z", 3))}, "m a.x=1 a.b.y=2 a.z=3"},
		"error":             {"m", []any{"error", errors.New("open x: no such file")}, `m error="open x: no such file"`},
		"nil":               {"m", []any{"error", nil}, "m error=<nil>"},
		"nil pointer":       {"m", []any{"u", (*url.URL)(nil)}, "m u=<nil>"},
		"bytes":             {"m", []any{"b", []byte("hi")}, "m b=hi"},
		"duration":          {"m", []any{"d", 1500 * time.Millisecond}, "m d=1.5s"},
		"time":              {"m", []any{"t", newYear}, "m t=2026-01-02T03:04:05Z"},
		"list":              {"m", []any{"l", []string{"a", "b"}}, `m l="[a b]"`},
		"valuer":            {"m", []any{"s", secret("x")}, "m s=[redacted]"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			want := "[INF] 2026-01-02 03:04:05 - " + tt.want + "\n"
			if got := lineOf(t, logOptions{}, tt.message, tt.args...); got != want {
				t.Errorf("\ngot  %q\nwant %q", got, want)
			}
		})
	}
}

// secret logs as anything but itself.
type secret string

func (secret) LogValue() slog.Value { return slog.StringValue("[redacted]") }

func TestLogTimeFormats(t *testing.T) {
	for format, want := range map[string]string{
		"":         "2026-01-02 03:04:05",
		"DateTime": "2026-01-02 03:04:05",
		"DateOnly": "2026-01-02",
		"Stamp":    "Jan  2 03:04:05",
		"RFC822":   "02 Jan 26 03:04 UTC",
		"RFC3339":  "2026-01-02T03:04:05Z",
	} {
		if got := lineOf(t, logOptions{TimeFormat: format}, "m"); got != "[INF] "+want+" - m\n" {
			t.Errorf("%q: got %q, want time %q", format, got, want)
		}
	}
}

func TestLogLevelsAndStreams(t *testing.T) {
	tests := []struct{ level, out, err string }{
		{"none", "", ""},
		{"error", "", "ERR"},
		{"warn", "WRN", "ERR"},
		{"info", "INF WRN", "ERR"},
		{"", "INF WRN", "ERR"},
		{"debug", "DBG INF WRN", "ERR"},
	}
	tag := regexp.MustCompile(`\[(...)\] 2026-01-02 03:04:05 - m\n`)
	for _, tt := range tests {
		var stdout, stderr bytes.Buffer
		log, err := newLogger(logOptions{Level: tt.level}, &stdout, &stderr)
		if err != nil {
			t.Fatal(err)
		}
		for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
			logAt(t, log, level, "m")
		}
		got := tag.ReplaceAllString(stdout.String(), "$1 ") + "| " + tag.ReplaceAllString(stderr.String(), "$1 ")
		if want := strings.TrimSpace(tt.out+" | "+tt.err) + " "; strings.TrimSpace(got) != strings.TrimSpace(want) {
			t.Errorf("level %q: got %q, want %q", tt.level, got, want)
		}
	}
}

func TestLogOptionsThatDoNotExist(t *testing.T) {
	for _, o := range []logOptions{
		{Level: "loud"}, {Level: "INFO"}, {TimeFormat: "Kitchen"}, {Level: "none", TimeFormat: "x"},
	} {
		if _, err := newLogger(o, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "choose") {
			t.Errorf("%+v: got %v, want an error that names the choices", o, err)
		}
	}
}

func TestLogColor(t *testing.T) {
	got := lineOf(t, logOptions{Color: true}, "m")
	if want := "[\x1b[32mINF\x1b[0m] 2026-01-02 03:04:05 - m\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLogJSON(t *testing.T) {
	var stdout, stderr bytes.Buffer
	log, err := newLogger(logOptions{JSON: true, Color: true}, &stdout, &stderr)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("hello", "n", 1)
	log.WithGroup("g").Error("bad", "why", "x\ny")
	for name, c := range map[string]struct {
		line []byte
		want string
	}{
		"stdout": {stdout.Bytes(), "map[level:INFO msg:hello n:1]"},
		"stderr": {stderr.Bytes(), "map[g:map[why:x\ny] level:ERROR msg:bad]"},
	} {
		var got map[string]any
		if err := json.Unmarshal(c.line, &got); err != nil {
			t.Fatalf("%s: %v in %q", name, err, c.line)
		}
		delete(got, "time")
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: got %v, want %s", name, got, c.want)
		}
	}
}

// TestLogHandlerContract holds text lines against the rules for slog handlers.
func TestLogHandlerContract(t *testing.T) {
	var out *bytes.Buffer
	slogtest.Run(t, func(t *testing.T) slog.Handler {
		out = new(bytes.Buffer)
		log, err := newLogger(logOptions{}, out, out)
		if err != nil {
			t.Fatal(err)
		}
		return log.Handler()
	}, func(t *testing.T) map[string]any { return parseLine(t, out.String()) })
}

// parseLine reads a text line back, groups as maps.
func parseLine(t *testing.T, line string) map[string]any {
	t.Helper()
	m := regexp.MustCompile(`^\[(...)\]( [-0-9]+ [:0-9]+)? - (\w*)((?: [^ ]+=[^ ]+)*)\n$`).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("not a log line: %q", line)
	}
	root := map[string]any{slog.LevelKey: m[1], slog.MessageKey: m[3]}
	if m[2] != "" {
		root[slog.TimeKey] = m[2]
	}
	for _, pair := range strings.Fields(m[4]) {
		key, value, _ := strings.Cut(pair, "=")
		at, path := root, strings.Split(key, ".")
		for _, group := range path[:len(path)-1] {
			if at[group] == nil {
				at[group] = map[string]any{}
			}
			at = at[group].(map[string]any)
		}
		at[path[len(path)-1]] = value
	}
	return root
}

// countingWriter counts writes and needs a lock around them: without one the
// race detector speaks up.
type countingWriter struct {
	bytes.Buffer
	writes int
}

func (w *countingWriter) Write(p []byte) (int, error) {
	w.writes++
	return w.Buffer.Write(p)
}

func TestLogIsConcurrencySafeAndWritesOncePerRecord(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		var both countingWriter // stdout and stderr at once, as under 2>&1
		log, err := newLogger(logOptions{JSON: asJSON}, &both, &both)
		if err != nil {
			t.Fatal(err)
		}
		const writers, records = 8, 200
		var wg sync.WaitGroup
		for i := range writers {
			log := log.With("writer", i)
			wg.Go(func() {
				for n := range records {
					log.Log(context.Background(), slog.Level(4*(n%3)), "message", "n", n)
				}
			})
		}
		wg.Wait()
		if lines := bytes.Count(both.Bytes(), []byte("\n")); both.writes != writers*records || lines != both.writes {
			t.Errorf("JSON %t: %d writes and %d lines, want %d of both", asJSON, both.writes, lines, writers*records)
		}
	}
}

func FuzzLogLine(f *testing.F) {
	f.Add("message", "key", "value")
	f.Add("a\nb", "\x1b[0m", "\xff \"")
	f.Fuzz(func(t *testing.T, message, key, value string) {
		line := lineOf(t, logOptions{}, message, key, value)
		body, ok := strings.CutSuffix(line, "\n")
		if !ok || strings.ContainsFunc(body, unprintable) {
			t.Fatalf("not one printable line: %q", line)
		}
		if quoted := strconv.Quote(value); !strings.HasSuffix(body, "="+value) && !strings.HasSuffix(body, "="+quoted) {
			t.Errorf("%q does not end in the value %q", body, value)
		}
	})
}
