package microvm

import (
	"bufio"
	"bytes"
	"cmp"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	// lineMax is how many bytes of a line of a console go to the log, and
	// linesMax how many lines in a second: what a guest prints is its own affair.
	lineMax, linesMax = 512, 50
)

// console is what a VMM prints: above all what its guest does.
type console struct {
	log *slog.Logger

	mu    sync.Mutex
	last  string // line
	panic string // what the kernel said of its own end
}

func (c *console) lastLine() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return cmp.Or(c.panic, c.last)
}

// relay passes what is printed to the node's log, as far as it is not too much.
func (c *console) relay(output io.Reader) {
	r := bufio.NewReaderSize(output, lineMax)
	var since time.Time
	var lines, dropped int
	for {
		line, err := r.ReadSlice('\n')
		if now := time.Now(); now.Sub(since) >= time.Second {
			if dropped > 0 {
				c.log.Debug("Console lines were left out: there were too many", "lines", dropped)
			}
			since, lines, dropped = now, 0, 0
		}
		if text := trim(line); len(text) > 0 {
			c.mu.Lock()
			if c.last = string(text); bytes.Contains(text, []byte("Kernel panic")) {
				c.panic = c.last
			}
			c.mu.Unlock()
			if lines++; lines <= linesMax {
				c.log.Debug("Console", "text", string(text))
			} else {
				dropped++
			}
		}
		for err == bufio.ErrBufferFull { // the rest of a long line
			_, err = r.ReadSlice('\n')
		}
		if err != nil {
			if dropped > 0 {
				c.log.Debug("Console lines were left out: there were too many", "lines", dropped)
			}
			return
		}
	}
}

// trim takes blanks and line ends off the end.
func trim(line []byte) []byte {
	for len(line) > 0 && line[len(line)-1] <= ' ' {
		line = line[:len(line)-1]
	}
	return line
}
