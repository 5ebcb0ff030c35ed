// Package artifact fetches what workloads are made of and keeps it on disk by
// digest, so that one artifact is downloaded once however often it is used.
//
// A [Cache] streams to disk, checks sizes before and while it downloads, and
// verifies digests. It is safe for concurrent use.
package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"nex"
)

// Ref names an object in a JetStream Object Store.
type Ref struct {
	Bucket, Key string
	Domain      string // JetStream domain, "" for none
	SHA256      string // what the object must be, in lowercase hex, "" for anything
}

func (r Ref) String() string { return "nats://" + r.Bucket + "/" + r.Key }

// Info is what a source knows of an object before it is read.
type Info struct {
	Size   int64
	SHA256 string // lowercase hex, "" when unknown
}

// Source is where artifacts come from.
type Source interface {
	Stat(ctx context.Context, r Ref) (Info, error)
	// Open reads the object; the reader fails if its digest is wrong.
	Open(ctx context.Context, r Ref) (io.ReadCloser, error)
}

// Artifact is a verified file in the cache.
type Artifact struct {
	Path   string
	SHA256 string // lowercase hex
	Size   int64  // bytes
}

// incoming begins the names of downloads that are not complete.
const incoming = ".incoming-"

// Cache keeps artifacts in a directory of its own.
type Cache struct {
	dir      string
	maxBytes int64
	source   Source

	mu sync.Mutex // held while files come and go, not while downloading
}

// NewCache makes a cache in dir that keeps up to maxBytes of artifacts, the
// latest used ones.
func NewCache(dir string, maxBytes int64, source Source) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make artifact cache: %w", err)
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), incoming) { // a download that a crash cut off
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("clear artifact cache: %w", err)
	}
	return &Cache{dir: dir, maxBytes: maxBytes, source: source}, nil
}

// Fetch returns the artifact r names now, from disk if it is there. Its digest
// and size are checked before anything is downloaded, and again with what
// really came: allow is asked with the announced size, and with the real one
// if that is larger; its error ends the fetch.
func (c *Cache) Fetch(ctx context.Context, r Ref, allow func(size int64) error) (Artifact, error) {
	info, err := c.source.Stat(ctx, r)
	if err != nil {
		return Artifact{}, err
	}
	if err := r.check(info.SHA256); info.SHA256 != "" && err != nil {
		return Artifact{}, err
	}
	if err := allow(info.Size); err != nil {
		return Artifact{}, err
	}
	if a, ok := c.Find(info.SHA256); ok {
		return a, allow(a.Size) // the announced size is only somebody's word
	}
	body, err := c.source.Open(ctx, r)
	if err != nil {
		return Artifact{}, err
	}
	a, err := c.store(body, info.Size, allow)
	if errors.Is(err, syscall.ENOSPC) { // no defect
		err = nex.Errorf(nex.Unavailable, "the node's disk is full: %v", err)
	}
	if err == nil {
		err = r.check(a.SHA256)
	}
	if err = errors.Join(err, body.Close()); err != nil {
		return Artifact{}, err
	}
	return a, nil
}

// check reports whether r may have this digest.
func (r Ref) check(sha256 string) error {
	if r.SHA256 == "" || r.SHA256 == sha256 {
		return nil
	}
	return nex.Errorf(nex.Unauthorized, "artifact %s has SHA-256 %s, but the claim says %s", r, sha256, r.SHA256)
}

// Find returns an artifact that is in the cache already.
func (c *Cache) Find(sha256 string) (Artifact, bool) {
	if !isDigest(sha256) {
		return Artifact{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	path := filepath.Join(c.dir, sha256)
	fi, err := os.Stat(path)
	if err != nil || !fi.Mode().IsRegular() {
		return Artifact{}, false
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // only the order of eviction depends on it
	return Artifact{Path: path, SHA256: sha256, Size: fi.Size()}, true
}

// isDigest reports whether name is one that the cache gives: lowercase hex.
func isDigest(name string) bool {
	sum, err := hex.DecodeString(name)
	return err == nil && len(sum) == sha256.Size && name == strings.ToLower(name)
}

// store streams body into the cache and names it by its digest.
func (c *Cache) store(body io.Reader, announced int64, allow func(int64) error) (_ Artifact, err error) {
	f, err := os.CreateTemp(c.dir, incoming+"*")
	if err != nil {
		return Artifact{}, fmt.Errorf("store artifact: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), &meter{r: body, announced: announced, allow: allow})
	if err != nil {
		return Artifact{}, err
	}
	if err := f.Sync(); err != nil {
		return Artifact{}, fmt.Errorf("store artifact: %w", err)
	}
	a := Artifact{SHA256: hex.EncodeToString(h.Sum(nil)), Size: n}
	a.Path = filepath.Join(c.dir, a.SHA256)
	if err := c.keep(f, a); err != nil {
		return Artifact{}, err
	}
	return a, nil
}

func (c *Cache) keep(f *os.File, a Artifact) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.makeRoomLocked(a.Size); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), a.Path); err != nil {
		return fmt.Errorf("store artifact: %w", err)
	}
	return f.Close()
}

// makeRoomLocked removes the artifacts unused for longest until size more
// bytes fit.
func (c *Cache) makeRoomLocked(size int64) error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("read artifact cache: %w", err)
	}
	type file struct {
		path string
		used time.Time
		size int64
	}
	var files []file
	total := size
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil || !isDigest(e.Name()) {
			continue
		}
		files = append(files, file{filepath.Join(c.dir, e.Name()), fi.ModTime(), fi.Size()})
		total += fi.Size()
	}
	slices.SortFunc(files, func(a, b file) int { return a.used.Compare(b.used) })
	for _, f := range files {
		if total <= c.maxBytes {
			break
		}
		if err := os.Remove(f.path); err != nil {
			return fmt.Errorf("make room in artifact cache: %w", err)
		}
		total -= f.size
	}
	return nil
}

// meter ends a download that turns out larger than announced and allowed.
type meter struct {
	r         io.Reader
	announced int64
	read      int64
	allow     func(int64) error
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.read += int64(n); m.read > m.announced {
		if err := m.allow(m.read); err != nil {
			return 0, err
		}
	}
	return n, err
}
