package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"nex"
)

const (
	// measureEvery is how often the directory of a service is measured at most,
	// and restAfter how many times as long as that takes it then rests.
	measureEvery = time.Second
	restAfter    = 20
	// entrySize is the least that a file or directory counts for, in bytes, so
	// that measuring ends however many there are.
	entrySize = 1 << 10
	// ownFiles is for what the agent makes there besides: directories, a socket.
	ownFiles = 32 << 10
)

// errOver ends a measurement.
var errOver = errors.New("it is more")

// watchDisk ends a service whose directory holds more than it may, besides what
// it was given.
func (a *agent) watchDisk(id string, w *workload, most int64) {
	if most == 0 {
		return
	}
	a.waits.Go(func() {
		for rest := measureEvery; ; {
			t := time.NewTimer(rest)
			select {
			case <-t.C:
			case <-w.over:
				t.Stop()
				return
			}
			begin := time.Now()
			if _, over := measure(w.dir, w.given+ownFiles+most); over {
				a.endForDisk(id, w)
				return
			}
			rest = max(measureEvery, restAfter*time.Since(begin))
		}
	})
}

// endForDisk kills a service and remembers why.
func (a *agent) endForDisk(id string, w *workload) {
	a.mu.Lock()
	if !w.stopping {
		w.cause = nex.CauseDisk
	}
	a.mu.Unlock()
	w.log.log(slog.LevelError, "the directory of this service holds more than disk_mib allows: it is ended")
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // without grace: it goes on writing
	if err := w.service.Stop(ctx); err != nil {
		w.log.log(slog.LevelError, err.Error())
	}
}

// measure sums up what the files below a directory take on disk, and reports
// whether that is more than most. Files with several names count for each.
func measure(dir string, most int64) (sum int64, over bool) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it was removed meanwhile, or is closed to the service too
		}
		size := int64(0)
		if info, err := d.Info(); err == nil {
			size = sizeOnDisk(info)
		}
		if sum += max(size, entrySize); sum > most {
			return errOver
		}
		return nil
	})
	return sum, errors.Is(err, errOver)
}
