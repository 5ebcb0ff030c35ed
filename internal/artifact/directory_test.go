package artifact_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nex/internal/artifact"
)

func TestLeastRecentlyUsedGoesFirst(t *testing.T) {
	text := func(letter string) string { return strings.Repeat(letter, 100) }
	s := &source{objects: map[string]object{
		"a": honest(text("a")), "b": honest(text("b")), "c": honest(text("c")), "d": honest(text("d")), "big": honest(strings.Repeat("x", 1000)),
	}}
	c, dir := newCache(t, 300, s)
	fetch(t, c, "a")
	fetch(t, c, "b")
	fetch(t, c, "c")
	wantFiles(t, dir, digest(text("a")), digest(text("b")), digest(text("c")))
	if _, ok := c.Find(digest(text("a"))); !ok { // used: younger than b
		t.Error("a is not there")
	}
	fetch(t, c, "b") // used too: c is the oldest now
	fetch(t, c, "d")
	wantFiles(t, dir, digest(text("a")), digest(text("b")), digest(text("d")))
	if _, ok := c.Find(digest(text("c"))); ok {
		t.Error("c is still there")
	}
	if a := fetch(t, c, "big"); a.Size != 1000 { // larger than the cache, but needed
		t.Errorf("big: %+v", a)
	}
	wantFiles(t, dir, s.objects["big"].info.SHA256)
	fetch(t, c, "a")
	wantFiles(t, dir, digest(text("a")))
	if opened, _ := s.counts(); opened != 6 {
		t.Errorf("opened %d times", opened)
	}
}

// TestEvictionSparesWhatIsNotItsOwn: only artifacts are removed.
func TestEvictionSparesWhatIsNotItsOwn(t *testing.T) {
	c, dir := newCache(t, 1, &source{objects: map[string]object{"a": honest("aaa"), "b": honest("bbb")}})
	if err := os.WriteFile(filepath.Join(dir, "README"), []byte("not an artifact"), 0o600); err != nil {
		t.Fatal(err)
	}
	fetch(t, c, "a")
	fetch(t, c, "b")
	wantFiles(t, dir, "README", digest("bbb"))
}

func TestNewCacheClearsLeftovers(t *testing.T) {
	for _, name := range []string{"cache", "odd [dir] *", "[", `back\slash`} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{".incoming-1", ".incoming-2735", digest("hello"), "incoming-x"} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte("hello"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c, err := artifact.NewCache(dir, plenty, &source{})
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		wantFiles(t, dir, digest("hello"), "incoming-x")
		if a, ok := c.Find(digest("hello")); !ok || a.Size != 5 {
			t.Errorf("%q: %+v, %v", name, a, ok)
		}
	}
}

func TestNewCacheNeedsADirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := artifact.NewCache(filepath.Join(file, "cache"), plenty, &source{}); err == nil || c != nil {
		t.Errorf("got %v, %v", c, err)
	}
}

// TestFindKnowsDigestsOnly: whatever is asked for, nothing but an artifact is
// found.
func TestFindKnowsDigestsOnly(t *testing.T) {
	c, dir := newCache(t, plenty, &source{})
	upper := strings.ToUpper(digest("upper"))
	for _, name := range []string{".incoming-1", "README", upper} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, digest("dir")), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"", ".", "..", "/", "../..", ".incoming-1", "README", "x/README", dir + "/README", upper, digest("upper"), digest("dir"),
		"\x00", strings.Repeat("../", 19) + "README", strings.Repeat("x", 1<<16),
	} {
		if a, ok := c.Find(s); ok {
			t.Errorf("%.80q found %+v", s, a)
		}
	}
}
