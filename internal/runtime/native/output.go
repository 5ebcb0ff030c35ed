package native

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"nex/internal/runtime"
)

const (
	maxLine   = 64 << 10        // bytes of one log record; longer lines are split
	drainTime = 2 * time.Second // for output that is left after the process died
)

// output is the two pipes a process prints to and their readers.
type output struct {
	files   []*os.File // what the process gets: standard input, output and error
	pipes   []*os.File // our ends
	readers sync.WaitGroup
}

// openOutput opens the pipes and starts their readers; drain ends them.
func openOutput(log runtime.Log) (*output, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	o := &output{files: []*os.File{null}}
	for _, level := range []slog.Level{slog.LevelInfo, slog.LevelError} {
		r, w, err := os.Pipe()
		if err != nil {
			o.handOver()
			o.drain()
			return nil, err
		}
		o.files, o.pipes = append(o.files, w), append(o.pipes, r)
		o.readers.Go(func() { logLines(r, level, log) })
	}
	return o, nil
}

// handOver closes the process's files on our side, so that its death ends the
// output.
func (o *output) handOver() {
	for _, f := range o.files {
		_ = f.Close()
	}
}

// drain returns when all output is read. A process that left the group may
// hold the pipes open: it is not waited for long.
func (o *output) drain() {
	for _, r := range o.pipes {
		_ = r.SetReadDeadline(time.Now().Add(drainTime))
	}
	o.readers.Wait()
	for _, r := range o.pipes {
		_ = r.Close()
	}
}

// logLines makes each line that r yields a log record.
func logLines(r io.Reader, level slog.Level, log runtime.Log) {
	buf := bufio.NewReaderSize(r, maxLine)
	for split := false; ; {
		line, err := buf.ReadSlice('\n')
		text := strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r")
		if text != "" || len(line) > 0 && !split {
			log(level, text)
		}
		split = errors.Is(err, bufio.ErrBufferFull)
		if err != nil && !split {
			return
		}
	}
}
