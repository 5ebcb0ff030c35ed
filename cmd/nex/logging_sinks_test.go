package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLogSinksFlag(t *testing.T) {
	for list, want := range map[string]string{
		"std": "std", "file,nats": "file,nats", " nats , std ": "nats,std", "": "", "std,": "", "stdout": "", "File": "", "std file": "",
	} {
		var s logSinks
		err := s.Set(list)
		if want == "" && (err == nil || !strings.Contains(err.Error(), "choose std, file or nats")) || want != "" && (err != nil || s.String() != want) {
			t.Errorf("%q: got %q, %v; want %q", list, s.String(), err, want)
		}
	}
	var s logSinks
	for _, each := range []string{"std", "nats"} {
		if err := s.Set(each); err != nil {
			t.Fatal(err)
		}
	}
	if s.String() != "std,nats" {
		t.Errorf("given twice the flag is %s", s.String())
	}
}

// TestLogSinks writes one line of each level and reads it where it should be.
func TestLogSinks(t *testing.T) {
	const all, upToWarn, severe = "DBG INF WRN", "INF WRN", "ERR"
	for _, tt := range []struct {
		sinks, level                               string
		stdout, stderr, file, errFile, out, errOut string // the last two for NATS
	}{
		{sinks: "", stdout: upToWarn, stderr: severe},
		{sinks: "std", stdout: upToWarn, stderr: severe},
		{sinks: "std,std", stdout: upToWarn, stderr: severe},
		{sinks: "file", file: upToWarn, errFile: severe},
		{sinks: "file", level: "error", errFile: severe},
		{sinks: "file", level: "none"},
		{sinks: "std,file", level: "debug", stdout: all, stderr: severe, file: all, errFile: severe},
		{sinks: "std,nats", stdout: upToWarn, stderr: severe, out: upToWarn, errOut: severe},
		{sinks: "nats", stdout: "WRN", stderr: severe, out: upToWarn, errOut: severe},
		{sinks: "nats", level: "debug", stdout: "WRN", stderr: severe, out: all, errOut: severe},
		{sinks: "nats", level: "error", stderr: severe, errOut: severe},
		{sinks: "nats", level: "none"},
		{sinks: "file,nats", file: upToWarn, errFile: severe, out: upToWarn, errOut: severe},
	} {
		t.Run(tt.sinks+" "+tt.level, func(t *testing.T) {
			t.Chdir(t.TempDir())
			o := logOptions{Level: tt.level}
			if tt.sinks != "" {
				if err := o.Sinks.Set(tt.sinks); err != nil {
					t.Fatal(err)
				}
			}
			var stdout, stderr, out, errOut bytes.Buffer
			log, err := openLog(o, &stdout, &stderr)
			if err != nil {
				t.Fatal(err)
			}
			loggers := []*slog.Logger{log.Logger}
			if log.published != nil {
				loggers = append(loggers, log.published(&out, &errOut))
			}
			for _, l := range loggers {
				for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
					logAt(t, l, level, "m")
				}
			}
			if err := log.Close(); err != nil {
				t.Error(err)
			}
			got := fmt.Sprintf("%s|%s|%s|%s|%s|%s", tags(stdout.Bytes()), tags(stderr.Bytes()),
				tags(read(t, logFile)), tags(read(t, errorFile)), tags(out.Bytes()), tags(errOut.Bytes()))
			want := strings.Join([]string{tt.stdout, tt.stderr, tt.file, tt.errFile, tt.out, tt.errOut}, "|")
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// tags returns the level tags of log lines.
func tags(log []byte) string {
	var found []string
	for line := range strings.Lines(string(log)) {
		found = append(found, strings.TrimSuffix(strings.TrimPrefix(line, "["), "] 2026-01-02 03:04:05 - m\n"))
	}
	return strings.Join(found, " ")
}

// read returns what is in a file, nothing when there is none.
func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return data
}

func TestLogFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	for range 2 {
		var console bytes.Buffer
		log, err := openLog(logOptions{Sinks: logSinks{sinkStd, sinkFile}, Color: true}, &console, &console)
		if err != nil {
			t.Fatal(err)
		}
		logAt(t, log.Logger, slog.LevelInfo, "m")
		if err := log.Close(); err != nil {
			t.Error(err)
		}
		if !strings.Contains(console.String(), "\x1b[") {
			t.Errorf("no color in %q", console.String())
		}
	}
	if got := tags(read(t, logFile)); got != "INF INF" {
		t.Errorf("the second start did not append: %q", got)
	}
	for _, name := range []string{logFile, errorFile} {
		if info, err := os.Stat(name); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
}

func TestLogFileThatCannotBe(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir(filepath.Join(".", errorFile), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := openLog(logOptions{Sinks: logSinks{sinkFile}}, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "open log file: ") || !strings.Contains(err.Error(), errorFile) {
		t.Errorf("got %v", err)
	}
}
