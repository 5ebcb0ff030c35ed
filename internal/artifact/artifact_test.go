package artifact_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"nex"
	"nex/internal/artifact"
	"nex/internal/nextest"
	"nex/internal/nextest/leaks"
)

func TestMain(m *testing.M) {
	os.Exit(leaks.Run(m))
}

// object is what a source says of an object, and what reading it gives.
type object struct {
	info artifact.Info
	body func(context.Context) io.Reader
}

// honest is an object that is what it says.
func honest(text string) object {
	return object{artifact.Info{Size: int64(len(text)), SHA256: digest(text)}, func(context.Context) io.Reader { return strings.NewReader(text) }}
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// source is a Source whose objects a test sets by their keys.
type source struct {
	mu             sync.Mutex
	objects        map[string]object
	opened, closed int
}

var errNone = errors.New("no such object")

func (s *source) Stat(_ context.Context, r artifact.Ref) (artifact.Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[r.Key]
	if !ok {
		return artifact.Info{}, errNone
	}
	return o.info, nil
}

func (s *source) Open(ctx context.Context, r artifact.Ref) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[r.Key]
	if o.body == nil {
		return nil, errNone
	}
	s.opened++
	return &reading{o.body(ctx), s}, nil
}

type reading struct {
	io.Reader
	s *source
}

func (r *reading) Close() error {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.s.closed++
	return nil
}

func (s *source) counts() (opened, closed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened, s.closed
}

const plenty = 1 << 30 // bytes

func anySize(int64) error { return nil }

func newCache(t *testing.T, maxBytes int64, s artifact.Source) (*artifact.Cache, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cache")
	c, err := artifact.NewCache(dir, maxBytes, s)
	if err != nil {
		t.Fatal(err)
	}
	return c, dir
}

func fetch(t *testing.T, c *artifact.Cache, key string) artifact.Artifact {
	t.Helper()
	a, err := c.Fetch(t.Context(), artifact.Ref{Bucket: "B", Key: key}, anySize)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return a
}

// wantFiles checks what is in a directory, whatever the order.
func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, e := range entries {
		got = append(got, e.Name())
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the directory has %q, want %q", got, want)
	}
}

func TestFetchKeepsOnDisk(t *testing.T) {
	s := &source{objects: map[string]object{"k": honest("hello"), "same": honest("hello"), "none": honest("")}}
	c, dir := newCache(t, plenty, s)
	a := fetch(t, c, "k")
	want := artifact.Artifact{Path: filepath.Join(dir, digest("hello")), SHA256: digest("hello"), Size: 5}
	if a != want {
		t.Errorf("got %+v, want %+v", a, want)
	}
	if text, err := os.ReadFile(a.Path); err != nil || string(text) != "hello" {
		t.Errorf("the file holds %q, %v", text, err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700, a.Path: 0o600} {
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, %v", path, fi.Mode().Perm(), err)
		}
	}
	for _, key := range []string{"k", "same"} {
		if again := fetch(t, c, key); again != want {
			t.Errorf("again: %+v", again)
		}
	}
	if found, ok := c.Find(a.SHA256); !ok || found != want {
		t.Errorf("found %+v, %v", found, ok)
	}
	if opened, closed := s.counts(); opened != 1 || closed != 1 {
		t.Errorf("opened %d times, closed %d times", opened, closed)
	}
	if empty := fetch(t, c, "none"); empty.Size != 0 || empty.SHA256 != digest("") {
		t.Errorf("empty: %+v", empty)
	}
	wantFiles(t, dir, digest("hello"), digest(""))
}

// TestAnotherCacheFindsIt: a node that starts again downloads nothing.
func TestAnotherCacheFindsIt(t *testing.T) {
	s := &source{objects: map[string]object{"k": honest("hello")}}
	c, dir := newCache(t, plenty, s)
	a := fetch(t, c, "k")
	c, err := artifact.NewCache(dir, plenty, s)
	if err != nil {
		t.Fatal(err)
	}
	if again := fetch(t, c, "k"); again != a {
		t.Errorf("got %+v", again)
	}
	if opened, _ := s.counts(); opened != 1 {
		t.Errorf("opened %d times", opened)
	}
}

func TestNamedByContentNotByClaim(t *testing.T) {
	lie := honest("hello")
	lie.info.SHA256 = digest("something else")
	unknown := honest("bye")
	unknown.info.SHA256 = ""
	c, dir := newCache(t, plenty, &source{objects: map[string]object{"lie": lie, "unknown": unknown}})
	for key, text := range map[string]string{"lie": "hello", "unknown": "bye"} {
		if a := fetch(t, c, key); a.SHA256 != digest(text) || filepath.Base(a.Path) != digest(text) {
			t.Errorf("%s: %+v", key, a)
		}
	}
	if a, ok := c.Find(lie.info.SHA256); ok {
		t.Errorf("found %+v", a)
	}
	wantFiles(t, dir, digest("hello"), digest("bye"))
}

func TestSizeIsRefusedBeforeDownload(t *testing.T) {
	s := &source{objects: map[string]object{"k": honest("hello")}}
	c, dir := newCache(t, plenty, s)
	tooLarge := errors.New("too large")
	var asked []int64
	_, err := c.Fetch(t.Context(), artifact.Ref{Key: "k"}, func(size int64) error { asked = append(asked, size); return tooLarge })
	if !errors.Is(err, tooLarge) || !slices.Equal(asked, []int64{5}) {
		t.Errorf("asked %v, %v", asked, err)
	}
	if opened, _ := s.counts(); opened != 0 {
		t.Error("it was opened")
	}
	wantFiles(t, dir)
	fetch(t, c, "k")
	if _, err := c.Fetch(t.Context(), artifact.Ref{Key: "k"}, func(int64) error { return tooLarge }); !errors.Is(err, tooLarge) {
		t.Errorf("what is on disk is not refused: %v", err)
	}
}

// TestDigestThatIsWanted is checked by what the source says, before the
// download, and by what came.
func TestDigestThatIsWanted(t *testing.T) {
	silent, liar := honest("hello"), honest("hello")
	silent.info.SHA256, liar.info.SHA256 = "", digest("good bye")
	s := &source{objects: map[string]object{"honest": honest("hello"), "silent": silent, "liar": liar}}
	c, _ := newCache(t, plenty, s)
	for _, want := range []struct {
		key, digest string
		opened      int
		ok          bool
	}{
		{"honest", digest("good bye"), 0, false},
		{"silent", digest("good bye"), 1, false},
		{"liar", digest("good bye"), 2, false},
		{"liar", digest("hello"), 2, false},
		{"silent", digest("hello"), 3, true},
		{"honest", digest("hello"), 3, true},
	} {
		a, err := c.Fetch(t.Context(), artifact.Ref{Key: want.key, SHA256: want.digest}, anySize)
		if (err == nil) != want.ok || !want.ok && (nex.CodeOf(err) != nex.Unauthorized || a != (artifact.Artifact{})) {
			t.Errorf("%s as %.8s: %+v, %v", want.key, want.digest, a, err)
		}
		if opened, _ := s.counts(); opened != want.opened {
			t.Errorf("%s as %.8s: opened %d times, want %d", want.key, want.digest, opened, want.opened)
		}
	}
}

func TestGrowingObject(t *testing.T) {
	growing := honest(strings.Repeat("x", 1<<20))
	growing.info.Size = 10
	s := &source{objects: map[string]object{"k": growing}}
	c, dir := newCache(t, plenty, s)
	tooLarge := errors.New("too large")
	upTo := func(most int64) func(int64) error {
		return func(size int64) error {
			if size > most {
				return tooLarge
			}
			return nil
		}
	}
	if _, err := c.Fetch(t.Context(), artifact.Ref{Key: "k"}, upTo(1<<19)); !errors.Is(err, tooLarge) {
		t.Errorf("got %v", err)
	}
	wantFiles(t, dir)
	if a, err := c.Fetch(t.Context(), artifact.Ref{Key: "k"}, upTo(1<<20)); err != nil || a.Size != 1<<20 {
		t.Errorf("what is allowed: %+v, %v", a, err)
	}
	if opened, closed := s.counts(); opened != 2 || closed != 2 {
		t.Errorf("opened %d times, closed %d times", opened, closed)
	}
}

func TestFailedDownloadLeavesNothing(t *testing.T) {
	boom := errors.New("boom")
	s := &source{objects: map[string]object{
		"stat only": {info: artifact.Info{Size: 5}},
		"breaks": {artifact.Info{Size: 10}, func(context.Context) io.Reader {
			return io.MultiReader(strings.NewReader("hello"), iotest.ErrReader(boom))
		}},
	}}
	c, dir := newCache(t, plenty, s)
	for key, want := range map[string]error{"missing": errNone, "stat only": errNone, "breaks": boom} {
		if a, err := c.Fetch(t.Context(), artifact.Ref{Key: key}, anySize); !errors.Is(err, want) || a != (artifact.Artifact{}) {
			t.Errorf("%s: %+v, %v", key, a, err)
		}
	}
	wantFiles(t, dir)
	if opened, closed := s.counts(); opened != closed {
		t.Errorf("opened %d, closed %d", opened, closed)
	}
}

func TestCancelLeavesNothing(t *testing.T) {
	reading := make(chan struct{})
	stalled := object{artifact.Info{Size: 10}, func(ctx context.Context) io.Reader {
		return io.MultiReader(strings.NewReader("hello"), reader(func([]byte) (int, error) {
			close(reading)
			<-ctx.Done()
			return 0, ctx.Err()
		}))
	}}
	c, dir := newCache(t, plenty, &source{objects: map[string]object{"k": stalled}})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := c.Fetch(ctx, artifact.Ref{Key: "k"}, anySize)
		failed <- err
	}()
	nextest.Await(t, reading, "the download")
	cancel()
	if err := nextest.Await(t, failed, "the end"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	wantFiles(t, dir)
}

type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }

func TestConcurrentFetches(t *testing.T) {
	text := strings.Repeat("0123456789", 50_000)
	s := &source{objects: map[string]object{"k": honest(text), "other": honest("hello")}}
	c, dir := newCache(t, plenty, s)
	var wg sync.WaitGroup
	for i := range 16 {
		key, want := "k", text
		if i%4 == 0 {
			key, want = "other", "hello"
		}
		wg.Go(func() {
			a, err := c.Fetch(t.Context(), artifact.Ref{Key: key}, anySize)
			if err != nil || a.SHA256 != digest(want) {
				t.Errorf("%s: %+v, %v", key, a, err)
				return
			}
			if got, err := os.ReadFile(a.Path); err != nil || !bytes.Equal(got, []byte(want)) {
				t.Errorf("%s: the file has %d bytes, %v", key, len(got), err)
			}
		})
	}
	wg.Wait()
	if opened, closed := s.counts(); opened != closed {
		t.Errorf("opened %d, closed %d", opened, closed)
	}
	wantFiles(t, dir, digest(text), digest("hello"))
}
