package agent

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestThrottle: a burst passes, what is beyond is counted and told, and later
// there is room again.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var lines int
		var said []string
		th := newThrottle(func(level slog.Level, text string) {
			mu.Lock()
			defer mu.Unlock()
			if lines++; level == slog.LevelWarn {
				said = append(said, text)
			}
		})
		passed := func(many int, text string) int {
			mu.Lock()
			before := lines
			mu.Unlock()
			for range many {
				th.log(slog.LevelInfo, text)
			}
			mu.Lock()
			defer mu.Unlock()
			return lines - before
		}
		if n := passed(linesAtOnce+5, "x"); n != linesAtOnce {
			t.Errorf("%d lines passed, want %d", n, linesAtOnce)
		}
		time.Sleep(2 * tellDropped)
		synctest.Wait()
		if len(said) != 1 || !strings.HasPrefix(said[0], "5 lines of 5 bytes were dropped") {
			t.Errorf("said %q", said)
		}
		if n := passed(3*linesPerSecond, "x"); n != 2*linesPerSecond {
			t.Errorf("%d lines passed after two seconds", n)
		}
		time.Sleep(time.Hour)
		if n := passed(2*bytesAtOnce>>16, strings.Repeat("x", 64<<10)); n != bytesAtOnce>>16 {
			t.Errorf("%d long lines passed", n)
		}
		th.close()
		if want := fmt.Sprintf("%d lines of %d bytes", bytesAtOnce>>16, bytesAtOnce); !strings.HasPrefix(said[len(said)-1], want) {
			t.Errorf("at the end it said %q, want %s", said, want)
		}
		before := len(said)
		th.close()
		if len(said) != before {
			t.Error("it says it twice")
		}
	})
}

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"one": 1 << 20, "a/two": 2 << 20, "a/b/tiny": 1} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/", filepath.Join(dir, "away")); err != nil {
		t.Fatal(err)
	}
	if sum, over := measure(dir, 4<<20); sum < 3<<20 || over {
		t.Errorf("%d bytes, over %t", sum, over)
	}
	if _, over := measure(dir, 3<<20); !over {
		t.Error("3 MiB and a little are not over 3 MiB")
	}
	if sum, over := measure(filepath.Join(dir, "gone"), 1); over {
		t.Errorf("nothing is %d bytes", sum)
	}
}
