package node

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"nex"
)

const (
	// maxReplays is how many requests are remembered at most.
	maxReplays = 100_000
	// replayRecord is the size of one record in the file: key, owner, until.
	replayRecord = sha256.Size + 8 + 8
	// replayIdle is how many records in the file may be out of date, besides
	// as many as are not.
	replayIdle = 1000
)

// replays remembers requests, on disk too, so that none is taken twice. What
// was remembered survives the end of the process at any moment, but maybe not
// that of the host. Safe for concurrent use.
type replays struct {
	path string
	now  func() time.Time

	mu    sync.Mutex // guards all below
	seen  map[replayKey]remembered
	owned map[uint64]int // how many of seen each owner has
	file  *os.File       // appended to; nil as long as it could not be written
	left  int            // records the file may grow by
}

// replayKey is what makes a request this one and no other.
type replayKey [sha256.Size]byte

// remembered is what is known of a request besides its key.
type remembered struct {
	owner uint64 // stands for who signed it
	until int64  // Unix seconds
}

// keyOf makes a key of a request's claims and what they may not say.
func keyOf(jwt, rest string) replayKey { return sha256.Sum256([]byte(jwt + "\x00" + rest)) }

// openReplays reads what an earlier process of this node remembered. A full disk
// is no reason not to start: what is taken up again was remembered before, and
// nothing new is taken as long as it cannot be.
func openReplays(path string, now func() time.Time) (*replays, error) {
	r := &replays{path: path, now: now, seen: map[replayKey]remembered{}, owned: map[uint64]int{}}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read remembered requests: %w", err)
	}
	for ; len(data) >= replayRecord; data = data[replayRecord:] {
		r.addLocked(replayKey(data), remembered{
			owner: binary.BigEndian.Uint64(data[sha256.Size:]), until: int64(binary.BigEndian.Uint64(data[sha256.Size+8:])),
		})
	} // half a record at the end is of a request that was not taken
	if err := r.rewriteLocked(); err != nil && !errors.Is(err, syscall.ENOSPC) {
		return nil, err
	}
	return r, nil
}

// once remembers a request of issuer until it expires. It is an error if it is
// remembered already.
func (r *replays) once(key replayKey, issuer string, until time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.seen[key]; ok && old.until >= r.now().Unix() {
		return nex.Errorf(nex.Unauthorized, "this request was taken before: send a newly signed one")
	}
	owner := sha256.Sum256([]byte(issuer))
	m := remembered{owner: binary.BigEndian.Uint64(owner[:]), until: until.Unix()}
	if r.left <= 0 {
		if err := r.rewriteLocked(); err != nil {
			return diskFull(err)
		}
	}
	if _, err := r.file.Write(record(key, m)); err != nil {
		r.left = 0 // half a record may be there: write all anew
		return diskFull(fmt.Errorf("remember request: %w", err))
	}
	r.left--
	r.addLocked(key, m)
	return nil
}

// diskFull makes an error that has to do with a full disk say that trying again
// may help: it is no defect.
func diskFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return nex.Errorf(nex.Unavailable, "the node's disk is full: %v", err)
	}
	return err
}

func record(key replayKey, m remembered) []byte {
	b := binary.BigEndian.AppendUint64(key[:], m.owner)
	return binary.BigEndian.AppendUint64(b, uint64(m.until))
}

func (r *replays) addLocked(key replayKey, m remembered) {
	r.dropLocked(key)
	if len(r.seen) >= maxReplays {
		r.makeRoomLocked()
	}
	r.seen[key] = m
	r.owned[m.owner]++
}

func (r *replays) dropLocked(key replayKey) {
	m, ok := r.seen[key]
	if !ok {
		return
	}
	delete(r.seen, key)
	if r.owned[m.owner]--; r.owned[m.owner] == 0 {
		delete(r.owned, m.owner)
	}
}

// makeRoomLocked forgets what is out of date, or else a request of whoever sent
// most of them: a flood makes the node forget the flood.
func (r *replays) makeRoomLocked() {
	now := r.now().Unix()
	for key, m := range r.seen {
		if m.until < now {
			r.dropLocked(key)
		}
	}
	if len(r.seen) < maxReplays {
		return
	}
	var most uint64
	for owner, n := range r.owned {
		if n > r.owned[most] {
			most = owner
		}
	}
	var oldest replayKey
	first := true
	for key, m := range r.seen {
		if m.owner == most && (first || m.until < r.seen[oldest].until) {
			oldest, first = key, false
		}
	}
	r.dropLocked(oldest)
}

// rewriteLocked forgets what is out of date and replaces the file.
func (r *replays) rewriteLocked() error {
	now := r.now().Unix()
	var data bytes.Buffer
	for key, m := range r.seen {
		if m.until < now {
			r.dropLocked(key)
			continue
		}
		data.Write(record(key, m))
	}
	f, err := os.OpenFile(r.path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("remember requests: %w", err)
	}
	if _, err = f.Write(data.Bytes()); err == nil {
		err = os.Rename(f.Name(), r.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("remember requests: %w", err), f.Close(), os.Remove(f.Name()))
	}
	if r.file != nil {
		err = r.file.Close()
	}
	r.file, r.left = f, len(r.seen)+replayIdle
	return err
}

func (r *replays) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}

// replays is where a node remembers requests.
func (s *state) replays() string { return filepath.Join(s.dir, "replays") }
