package node

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nex"
)

// FuzzReplays opens any file. What of it is a record in force is remembered,
// the rest does no harm, and what is remembered then survives.
func FuzzReplays(f *testing.F) {
	now := time.Unix(1_795_224_567, 0)
	of := func(key string, owner uint64, until int64) []byte {
		return record(keyOf(key, ""), remembered{owner: owner, until: until})
	}
	old, valid := of("old", 1, now.Unix()-1), of("valid", 1, now.Unix())
	f.Add([]byte{}, "new")
	f.Add([]byte("not a record"), "valid")
	f.Add(bytes.Join([][]byte{old, valid, of("valid", 2, now.Unix()+5), valid[:replayRecord-1]}, nil), "valid")
	f.Add(bytes.Join([][]byte{valid, old, of("valid", 2, -1), of("min", 0, -1<<63), of("max", 0, 1<<63-1)}, nil), "old")
	f.Fuzz(func(t *testing.T, data []byte, jwt string) {
		path := filepath.Join(t.TempDir(), "replays")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		want := map[replayKey]int64{}
		for rest := data; len(rest) >= replayRecord; rest = rest[replayRecord:] {
			want[replayKey(rest)] = int64(binary.BigEndian.Uint64(rest[40:]))
		}
		for key, until := range want {
			if until < now.Unix() {
				delete(want, key)
			}
		}
		r := reopened(t, nil, path, now, want)
		key := keyOf(jwt, "")
		_, known := want[key]
		for range 2 {
			err := r.once(key, "A1", now.Add(time.Second))
			if (err != nil) != known || err != nil && nex.CodeOf(err) != nex.Unauthorized {
				t.Errorf("known %t: %v", known, err)
			}
			if !known {
				want[key] = now.Unix() + 1
			}
			known = true
		}
		r = reopened(t, r, path, now, want)
		reopened(t, r, path, now.Add(time.Hour), nil)
		_ = r.close() // closed already
	})
}

// reopened closes what is open, and checks what an hour or nothing later is
// remembered.
func reopened(t *testing.T, open *replays, path string, now time.Time, want map[replayKey]int64) *replays {
	t.Helper()
	if open != nil {
		if err := open.close(); err != nil {
			t.Fatal(err)
		}
	}
	r, err := openReplays(path, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.close() })
	owned := 0
	for _, n := range r.owned {
		owned += n
	}
	for key, m := range r.seen {
		if until, ok := want[key]; want != nil && (!ok || until != m.until) || m.until < now.Unix() {
			t.Errorf("%x is remembered until %d, want %d, %t", key, m.until, until, ok)
		}
	}
	if owned != len(r.seen) || want != nil && len(want) != len(r.seen) {
		t.Errorf("%d are remembered, %d of somebody, want %d", len(r.seen), owned, len(want))
	}
	if file, err := os.Stat(path); err != nil || file.Size() != int64(len(r.seen)*replayRecord) || file.Mode().Perm() != 0o600 {
		t.Errorf("file %v, %v for %d records", file, err, len(r.seen))
	}
	return r
}
