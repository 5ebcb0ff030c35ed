package firecracker

import (
	"strings"
	"sync"
)

// keptLines is how many lines of a console an error shows.
const keptLines = 8

// tail keeps the last lines that a console printed.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == keptLines {
		t.lines = t.lines[1:]
	}
	t.lines = append(t.lines, line[:min(len(line), 200)])
}

// text returns the lines to go at the end of an error, "" for none.
func (t *tail) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == 0 {
		return ""
	}
	return "; the console's last lines: " + strings.Join(t.lines, " | ")
}
