package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// logOptions are the log flags as the user gave them. Empty strings mean the
// defaults.
type logOptions struct {
	Level      string // none, debug, info (default), warn or error
	TimeFormat string // DateOnly, DateTime (default), Stamp, RFC822 or RFC3339, in text lines
	JSON       bool   // JSON objects, with their times in RFC 3339, instead of text lines
	Color      bool   // colors the level of text lines
	Sinks      logSinks
}

// newLogger returns a logger that writes errors to stderr and the rest to
// stdout, each record with one Write. Safe for concurrent use, also when both
// are the same writer.
func newLogger(o logOptions, stdout, stderr io.Writer) (*slog.Logger, error) {
	logger, err := loggers(o)
	if err != nil {
		return nil, err
	}
	return logger(stdout, stderr), nil
}

// loggers returns what makes loggers with the same options.
func loggers(o logOptions) (func(stdout, stderr io.Writer) *slog.Logger, error) {
	layout, err := timeLayout(o.TimeFormat)
	if err != nil {
		return nil, err
	}
	if o.Level == "none" {
		return func(io.Writer, io.Writer) *slog.Logger { return slog.New(slog.DiscardHandler) }, nil
	}
	level, err := logLevel(o.Level)
	if err != nil {
		return nil, err
	}
	handler := func(w io.Writer) slog.Handler {
		if o.JSON {
			return slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})
		}
		return &lineHandler{w: w, level: level, layout: layout, color: o.Color}
	}
	return func(stdout, stderr io.Writer) *slog.Logger {
		var mu sync.Mutex
		return slog.New(splitHandler{
			rest:   handler(&lockedWriter{mu: &mu, w: stdout}),
			errors: handler(&lockedWriter{mu: &mu, w: stderr}),
		})
	}, nil
}

// logLevel returns the least level that is logged under a name.
func logLevel(name string) (slog.Level, error) {
	switch name {
	case "debug":
		return slog.LevelDebug, nil
	case "info", "":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("unknown log level %q; choose none, debug, info, warn or error", name)
}

// timeLayout returns the layout that a time format names.
func timeLayout(name string) (string, error) {
	switch name {
	case "DateOnly":
		return time.DateOnly, nil
	case "DateTime", "":
		return time.DateTime, nil
	case "Stamp":
		return time.Stamp, nil
	case "RFC822":
		return time.RFC822, nil
	case "RFC3339":
		return time.RFC3339, nil
	}
	return "", fmt.Errorf("unknown time format %q; choose DateOnly, DateTime, Stamp, RFC822 or RFC3339", name)
}

// lockedWriter serializes the writes of all handlers that share mu.
type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer // guarded by mu
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// splitHandler passes errors to one handler and all other records to another.
type splitHandler struct{ rest, errors slog.Handler }

func (h splitHandler) of(level slog.Level) slog.Handler {
	if level >= slog.LevelError {
		return h.errors
	}
	return h.rest
}

func (h splitHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.of(level).Enabled(ctx, level)
}

func (h splitHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.of(r.Level).Handle(ctx, r)
}

func (h splitHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return splitHandler{rest: h.rest.WithAttrs(attrs), errors: h.errors.WithAttrs(attrs)}
}

func (h splitHandler) WithGroup(name string) slog.Handler {
	return splitHandler{rest: h.rest.WithGroup(name), errors: h.errors.WithGroup(name)}
}

// lineHandler writes records as lines of text:
//
//	[INF] 2006-01-02 15:04:05 - message key=value group.key="a value"
//
// Whatever the texts hold, a record is one line without control characters.
type lineHandler struct {
	w      io.Writer // takes whole records, concurrently
	level  slog.Level
	layout string
	color  bool
	attrs  string // the attributes of WithAttrs, ready to print
	group  string // prefix of the keys to come, as in "a.b."
}

func (h *lineHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	b.WriteString(levelTag(r.Level, h.color))
	if !r.Time.IsZero() {
		b.WriteString(" " + r.Time.Format(h.layout))
	}
	b.WriteString(" - " + escape(r.Message) + h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		appendAttr(&b, h.group, a)
		return true
	})
	b.WriteByte('\n')
	_, err := h.w.Write(b.Bytes())
	return err
}

func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	b := bytes.NewBufferString(h.attrs)
	for _, a := range attrs {
		appendAttr(b, h.group, a)
	}
	with := *h
	with.attrs = b.String()
	return &with
}

func (h *lineHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.group += name + "."
	return &with
}

// levelTag returns the level in brackets.
func levelTag(level slog.Level, color bool) string {
	const gray, green, yellow, red = 90, 32, 33, 31
	name, paint := "ERR", red
	switch {
	case level < slog.LevelInfo:
		name, paint = "DBG", gray
	case level < slog.LevelWarn:
		name, paint = "INF", green
	case level < slog.LevelError:
		name, paint = "WRN", yellow
	}
	if color {
		return fmt.Sprintf("[\x1b[%dm%s\x1b[0m]", paint, name)
	}
	return "[" + name + "]"
}

// appendAttr adds " key=value" to b; of a group one for each member.
func appendAttr(b *bytes.Buffer, group string, a slog.Attr) {
	a.Value = a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return
	}
	if a.Value.Kind() != slog.KindGroup {
		b.WriteString(" " + quote(group+a.Key) + "=" + quote(valueText(a.Value)))
		return
	}
	if a.Key != "" {
		group += a.Key + "."
	}
	for _, member := range a.Value.Group() {
		appendAttr(b, group, member)
	}
}

// valueText returns a value as people read it.
func valueText(v slog.Value) string {
	switch v.Kind() {
	case slog.KindTime:
		return v.Time().Format(time.RFC3339)
	case slog.KindAny:
		if b, ok := v.Any().([]byte); ok {
			return string(b)
		}
		return fmt.Sprint(v.Any())
	}
	return v.String()
}

// quote puts s in quotes when it would not read as one word, with everything
// escaped that cannot be printed.
func quote(s string) string {
	if s != "" && escape(s) == s && !strings.ContainsAny(s, ` "`) {
		return s
	}
	return strconv.Quote(s)
}

// escape replaces what cannot be printed in s, line ends and terminal
// commands among it, as in a Go string.
func escape(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if quoted := strconv.Quote(s[:size]); unprintable(r) || r == utf8.RuneError && size == 1 {
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
