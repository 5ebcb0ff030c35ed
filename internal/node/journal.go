package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/workload"
)

// entry is what the node has promised to run.
type entry struct {
	ID        string            `json:"id"`
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"` // for people who look
	SHA256    string            `json:"sha256"`
	Restarts  int               `json:"restarts"`
	Request   nex.DeployRequest `json:"-"`
	// Sealed is the request, which may hold secrets that nobody sealed before:
	// those of the connections it asks for.
	Sealed []byte `json:"request"`
}

// journal is the directory of entries, one file each, which is what a node that
// starts again brings back. A file is there as a whole or not at all, also after
// the host lost power. Safe for concurrent use.
type journal struct {
	dir  string
	keys nkeys.KeyPair // of the node, to whom requests are sealed
	xkey string
	log  *slog.Logger

	mu      sync.Mutex
	entries map[string]entry
}

var _ workload.Journal = (*journal)(nil)

// openJournal reads what was promised, oldest first. Files that cannot be read
// stay where they are and are told of in the log.
func openJournal(dir string, id identity, log *slog.Logger) (*journal, []entry, error) {
	j := &journal{dir: dir, keys: id.open, xkey: id.xkey, log: log, entries: map[string]entry{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make directory for workloads: %w", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read recorded workloads: %w", err)
	}
	var found []entry
	for _, f := range files { // in the order of names, and so of ids, and so of time
		path := filepath.Join(dir, f.Name())
		if strings.HasPrefix(f.Name(), halfWritten) {
			if err := os.Remove(path); err != nil {
				return nil, nil, fmt.Errorf("remove half a record: %w", err)
			}
			continue
		}
		e, err := j.read(path)
		if err != nil {
			log.Error("A workload is not brought back: its record cannot be read", "file", path, "error", err)
			continue
		}
		j.entries[e.ID] = e
		found = append(found, e)
	}
	return j, found, nil
}

func (j *journal) read(path string) (entry, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return entry{}, err
	}
	var e entry
	if err := json.Unmarshal(data, &e); err != nil {
		return entry{}, err
	}
	if e.ID+recordEnding != filepath.Base(path) {
		return entry{}, fmt.Errorf("it is of workload %.40q", e.ID)
	}
	request, err := j.keys.Open(e.Sealed, j.xkey)
	if err != nil {
		return entry{}, fmt.Errorf("open request: %w", err)
	}
	return e, json.Unmarshal(request, &e.Request)
}

// Keep records a workload. When it returns, the workload survives the host.
func (j *journal) Keep(e entry) error {
	request, err := json.Marshal(e.Request)
	if err == nil {
		e.Sealed, err = j.keys.Seal(request, j.xkey)
	}
	if err != nil {
		return fmt.Errorf("seal request: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.writeLocked(e); err != nil {
		_ = os.Remove(j.path(e.ID)) // it is there if only its name may not last
		return fmt.Errorf("record workload: %w", err)
	}
	j.entries[e.ID] = e
	return nil
}

// Restarted records how often a workload was started again. Losing that is no
// reason to stop it.
func (j *journal) Restarted(id string, n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e, ok := j.entries[id]
	if !ok {
		return
	}
	e.Restarts = n
	j.entries[id] = e
	if err := j.writeLocked(e); err != nil {
		j.log.Warn("Restarts of a workload are not recorded", "id", id, "error", err)
	}
}

// Ended forgets a workload. Unknown ids are fine.
func (j *journal) Ended(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, ok := j.entries[id]; !ok {
		return
	}
	delete(j.entries, id)
	err := os.Remove(j.path(id))
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = syncDir(j.dir)
	}
	if err != nil {
		j.log.Error("A workload that has ended may come back when the node starts again: its record is still there", "file", j.path(id), "error", err)
	}
}

const (
	recordEnding = ".json"
	halfWritten  = ".half-"
)

func (j *journal) path(id string) string { return filepath.Join(j.dir, id+recordEnding) }

func (j *journal) writeLocked(e entry) error {
	data, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(j.dir, halfWritten+"*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), j.path(e.ID))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(j.dir)
}

// syncDir makes the names in a directory last.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // where directories cannot be synced
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// workloads is where a node records what it has promised to run.
func (s *state) workloads() string { return filepath.Join(s.dir, "workloads") }
