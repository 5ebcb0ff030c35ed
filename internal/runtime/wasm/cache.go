package wasm

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tetratelabs/wazero"
)

// maxCache is how many bytes of compiled code a cache directory keeps.
const maxCache = 256 << 20

// sumFile holds the digest of all other files of an entry. An entry without it
// is not complete.
const sumFile = "sum"

// entry is the directory of one compiled module in a cache directory. The
// engine checks its files a little, but would believe a damaged number of
// functions or the address of one, so an entry is used only if it is what was
// once written. That keeps out damage, not an attacker who can write there.
type entry struct{ dir string }

// openEntry returns the entry for a module, emptied if it was damaged. known
// reports whether it holds compiled code.
func openEntry(cache string, code []byte) (e entry, known bool, err error) {
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return entry{}, false, err
	}
	name := sha256.Sum256(code)
	e = entry{filepath.Join(cache, hex.EncodeToString(name[:]))}
	if e.verify() {
		now := time.Now()
		_ = os.Chtimes(filepath.Join(e.dir, sumFile), now, now) // for prune; at worst it goes too early
		return e, true, nil
	}
	return e, false, e.remove()
}

func (e entry) remove() error { return os.RemoveAll(e.dir) }

// verify reports whether the entry is what was written.
func (e entry) verify() bool {
	want, err := os.ReadFile(filepath.Join(e.dir, sumFile))
	if err != nil {
		return false
	}
	got, err := e.sum()
	return err == nil && bytes.Equal(got, want)
}

// sum digests the names and the content of the entry's files.
func (e entry) sum() ([]byte, error) {
	digest := sha256.New()
	err := filepath.WalkDir(e.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == sumFile {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		relative, err := filepath.Rel(e.dir, path)
		if err != nil {
			return err
		}
		fmt.Fprintf(digest, "%q\n", relative)
		_, err = io.Copy(digest, f)
		return err
	})
	return digest.Sum(nil), err
}

// engineCache is the engine's view of the entry.
func (e entry) engineCache() (wazero.CompilationCache, error) {
	return wazero.NewCompilationCacheWithDir(e.dir)
}

// seal completes an entry that the engine has filled.
func (e entry) seal() error {
	sum, err := e.sum()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(e.dir), "sum-*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(sum)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(e.dir, sumFile))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// prune removes entries from a cache directory, those used longest ago first,
// until it holds at most limit bytes. keep stays.
func prune(cache string, limit int64, keep entry) error {
	list, err := os.ReadDir(cache)
	if err != nil {
		return err
	}
	type candidate struct {
		dir  string
		used time.Time
		size int64
	}
	var all []candidate
	var total int64
	for _, d := range list {
		c := candidate{dir: filepath.Join(cache, d.Name())}
		c.size, c.used = weigh(c.dir)
		total += c.size
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b candidate) int { return a.used.Compare(b.used) })
	for _, c := range all {
		if total <= limit {
			break
		}
		if c.dir == keep.dir {
			continue
		}
		if err := os.RemoveAll(c.dir); err != nil {
			return err
		}
		total -= c.size
	}
	return nil
}

// weigh returns how many bytes are below a path, and when the youngest of its
// files changed. What is being removed by another counts for nothing.
func weigh(path string) (size int64, used time.Time) {
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			size += info.Size()
			if info.ModTime().After(used) {
				used = info.ModTime()
			}
		}
		return nil
	})
	return size, used
}
