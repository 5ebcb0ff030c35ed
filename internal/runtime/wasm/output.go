package wasm

import (
	"bytes"
	"log/slog"
	"strings"

	"nex"
	"nex/internal/runtime"
)

const (
	maxReply = 64 << 20 // bytes of standard output
	maxLine  = 64 << 10 // bytes of one log record; longer lines are split
	maxLast  = 512      // bytes of standard error in an error text
)

// reply collects standard output and stops the call when it grows too big.
type reply struct {
	buf      []byte
	instance *instance
}

func (r *reply) Write(p []byte) (int, error) {
	if len(r.buf)+len(p) > maxReply {
		r.instance.interrupt(errTooLarge)
		return 0, errTooLarge
	}
	r.buf = append(r.buf, p...)
	return len(p), nil
}

var errTooLarge = nex.Errorf(nex.BadReply, "the reply is larger than %s", mebibytes(maxReply))

// lines cuts what a module prints into log records.
type lines struct {
	log   runtime.Log
	level slog.Level
	buf   []byte // the line so far
	last  string // the last line that is not blank, shortened
}

func (l *lines) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if rest[0] == '\n' {
			l.emit()
			rest = rest[1:]
			continue
		}
		if len(l.buf) == maxLine {
			l.emit()
		}
		n := min(len(rest), maxLine-len(l.buf))
		if i := bytes.IndexByte(rest[:n], '\n'); i >= 0 {
			n = i
		}
		l.buf = append(l.buf, rest[:n]...)
		rest = rest[n:]
	}
	return len(p), nil
}

// flush emits a last line that has no newline.
func (l *lines) flush() {
	if len(l.buf) > 0 {
		l.emit()
	}
}

func (l *lines) emit() {
	text := strings.TrimSuffix(string(l.buf), "\r")
	l.buf = l.buf[:0]
	if trimmed := strings.TrimSpace(text); trimmed != "" {
		l.last = strings.ToValidUTF8(trimmed[:min(len(trimmed), maxLast)], "")
	}
	l.log(l.level, text)
}
