package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
)

// Files that --logger=file appends to, in the working directory.
const (
	logFile   = "nex.log"
	errorFile = "nex.err"
)

// Places where log lines can go.
const (
	sinkStd  = "std"
	sinkFile = "file"
	sinkNATS = "nats"
)

// logSinks are the places where log lines go: a flag that can be repeated or
// given a list with commas.
type logSinks []string

// Set implements [fisk.Value].
func (s *logSinks) Set(list string) error {
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if !slices.Contains([]string{sinkStd, sinkFile, sinkNATS}, name) {
			return fmt.Errorf("unknown logger %q; choose std, file or nats", name)
		}
		*s = append(*s, name)
	}
	return nil
}

// String implements [fisk.Value].
func (s *logSinks) String() string { return strings.Join(*s, ",") }

// IsCumulative tells the flag parser that the flag can be repeated.
func (s *logSinks) IsCumulative() bool { return true }

// nodeLog is the log of a command that runs a node.
type nodeLog struct {
	*slog.Logger // std and file
	// published makes the logger of what goes to NATS, nil for none: only the
	// node has a connection for it.
	published func(stdout, stderr io.Writer) *slog.Logger
	files     []*os.File
}

// openLog opens the places where the log goes. When NATS is the only one,
// warnings and errors are printed too: those about NATS could not go there.
func openLog(o logOptions, stdout, stderr io.Writer) (*nodeLog, error) {
	toStd, toFile, toNATS := slices.Contains(o.Sinks, sinkStd), slices.Contains(o.Sinks, sinkFile), slices.Contains(o.Sinks, sinkNATS)
	plain, console := o, o
	plain.Color = false
	if toNATS && !toStd && o.Level != "none" && o.Level != "error" {
		console.Level = "warn"
	}
	plainLogger, err := loggers(plain)
	if err != nil {
		return nil, err
	}
	consoleLogger, err := newLogger(console, stdout, stderr)
	if err != nil {
		return nil, err
	}
	l := &nodeLog{}
	var handlers []slog.Handler
	if toFile {
		if l.files, err = openLogFiles(); err != nil {
			return nil, err
		}
		handlers = append(handlers, plainLogger(l.files[0], l.files[1]).Handler())
	}
	if toStd || !toFile {
		handlers = append(handlers, consoleLogger.Handler())
	}
	if toNATS {
		l.published = plainLogger
	}
	l.Logger = slog.New(slog.NewMultiHandler(handlers...))
	return l, nil
}

func openLogFiles() ([]*os.File, error) {
	var files []*os.File
	for _, name := range []string{logFile, errorFile} {
		f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open log file: %w", err), closeAll(files))
		}
		files = append(files, f)
	}
	return files, nil
}

// Close closes the log's files.
func (l *nodeLog) Close() error { return closeAll(l.files) }

func closeAll(files []*os.File) error {
	var err error
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	return err
}
