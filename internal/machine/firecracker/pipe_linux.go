package firecracker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

const (
	// logRate is how many lines a second of a Firecracker's log come into the
	// node's in the long run, and logBurst how many at once: guests can cause them.
	logRate, logBurst = 5, 100
	// metricsRate is how often a second metrics come in the long run, and metricsBurst
	// how often at once. Firecracker itself sends them every minute.
	metricsRate, metricsBurst = 0.1, 5
	// maxLine bounds a line of its log or its metrics, in bytes, and maxText what is
	// passed on of one of its log.
	maxLine, maxText = 64 << 10, 1 << 10
)

// pipe is a named pipe that Firecracker writes to. What nobody reads in time
// Firecracker drops, so that a guest can fill no disk with it.
type pipe struct {
	file   *os.File
	reader sync.WaitGroup
}

// lastLine is what the driver itself writes to a pipe when there is no more to come.
const lastLine = "\x00the end"

// openPipe makes a pipe that the given user may write to, and passes every line of
// it on until it is closed.
func openPipe(dir, name string, uid, gid int, line func(string)) (*pipe, error) {
	path := filepath.Join(dir, name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("make pipe %s: %w", name, err)
	}
	if err := os.Chown(path, uid, gid); err != nil {
		return nil, err
	}
	// Open for writing too: a pipe without writers would end.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	p := &pipe{file: f}
	p.reader.Go(func() { readLines(f, line) })
	return p, nil
}

// readLines passes on lines until the last, without those that are too long.
func readLines(from io.Reader, line func(string)) {
	r := bufio.NewReaderSize(from, maxLine)
	long := false
	for {
		data, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			long = true
		case err != nil:
			return
		case strings.TrimSuffix(string(data), "\n") == lastLine:
			return
		case long:
			long = false
		default:
			line(strings.TrimSpace(string(data)))
		}
	}
}

// close returns when what is in the pipe has been passed on.
func (p *pipe) close() {
	_ = p.file.SetWriteDeadline(time.Now().Add(time.Second)) // a pipe has deadlines
	if _, err := p.file.WriteString("\n" + lastLine + "\n"); err != nil {
		_ = p.file.Close() // which ends the reader
	}
	p.reader.Wait()
	_ = p.file.Close() // nothing of ours is lost
}

// relayLog passes Firecracker's log on to the node's.
func relayLog(log *slog.Logger) func(string) {
	limit := rate.NewLimiter(logRate, logBurst)
	dropped := 0
	return func(line string) {
		if line == "" {
			return
		}
		if !limit.Allow() {
			dropped++
			return
		}
		if dropped > 0 {
			log.Warn("Firecracker said too much", "lines_dropped", dropped)
			dropped = 0
		}
		level := slog.LevelDebug
		if strings.Contains(line, ":ERROR") || strings.Contains(line, ":WARN") {
			level = slog.LevelWarn
		}
		log.Log(context.Background(), level, "Firecracker says", "text", line[:min(len(line), maxText)])
	}
}

// relayMetrics passes Firecracker's metrics on, which come every minute and when they are
// flushed.
func relayMetrics(log *slog.Logger) func(string) {
	limit := rate.NewLimiter(metricsRate, metricsBurst)
	return func(line string) {
		if limit.Allow() && json.Valid([]byte(line)) {
			log.Debug("Firecracker's metrics", "metrics", json.RawMessage(line))
		}
	}
}
