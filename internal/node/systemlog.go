package node

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"nex"
)

// queuedLines is how many log lines wait to be published, as until NATS is
// there; what comes beyond is dropped and counted.
const queuedLines = 1024

// systemLog publishes a node's own log, a message for each line.
type systemLog struct {
	lines chan systemLine
	lost  atomic.Int64 // lines dropped since last told
}

type systemLine struct {
	stream string // stdout or stderr
	text   []byte
}

// newSystemLog returns the log that cfg asks for, nil for none, and adds it to
// cfg.Log. Nothing that publishing itself causes may be logged there, so what
// is about the connection stays with the logger that cfg had before.
func newSystemLog(cfg *Config) *systemLog {
	if cfg.SystemLog == nil {
		return nil
	}
	l := &systemLog{lines: make(chan systemLine, queuedLines)}
	published := cfg.SystemLog(systemStream{l, "stdout"}, systemStream{l, "stderr"})
	cfg.Log = slog.New(slog.NewMultiHandler(cfg.Log.Handler(), published.Handler()))
	return l
}

// systemStream takes lines for one of the two subjects. It never blocks.
type systemStream struct {
	log  *systemLog
	name string
}

var _ io.Writer = systemStream{}

func (s systemStream) Write(line []byte) (int, error) {
	select {
	case s.log.lines <- systemLine{stream: s.name, text: bytes.Clone(bytes.TrimSuffix(line, []byte("\n")))}:
	default:
		s.log.lost.Add(1)
	}
	return len(line), nil
}

// publish begins to publish once connected is closed, and goes on until the
// task is stopped and no line waits.
func (l *systemLog) publish(nc *nats.Conn, node string, connected <-chan struct{}, local *slog.Logger) *task {
	return runUntilStopped(func(ctx context.Context) {
		if l == nil {
			return
		}
		select {
		case <-connected:
		case <-ctx.Done(): // then nobody gets the lines, unless NATS came just now
		}
		for line, ok := l.next(ctx); ok; line, ok = l.next(ctx) {
			if nc.Publish(nex.SystemLogSubject(node, line.stream), line.text) != nil {
				l.lost.Add(1)
			} else if n := l.lost.Swap(0); n > 0 {
				local.Warn("Log lines were not published", "count", n)
			}
		}
	})
}

// next returns the next line, and after ctx has ended only one that waits
// already.
func (l *systemLog) next(ctx context.Context) (line systemLine, ok bool) {
	select {
	case line = <-l.lines:
		return line, true
	case <-ctx.Done():
	}
	select {
	case line = <-l.lines:
		return line, true
	default:
		return line, false
	}
}
