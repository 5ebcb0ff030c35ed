package preflight

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// payload is what the servers of these tests have, larger than one read of the
// fetcher.
func payload() []byte {
	data := make([]byte, 3<<20)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(data) // never fails
	return data
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// origin is a server that remembers what it was asked for.
type origin struct {
	mu     sync.Mutex
	ranges []string // of each request
	*httptest.Server
}

func serve(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *origin {
	o := &origin{}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.ranges = append(o.ranges, r.Header.Get("Range"))
		n := len(o.ranges)
		o.mu.Unlock()
		answer(n, w, r)
	}))
	t.Cleanup(o.Close)
	return o
}

func (o *origin) asked() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string{}, o.ranges...)
}

func testFetcher(t *testing.T) *fetcher {
	f := newFetcher(filepath.Join(t.TempDir(), "downloads"), func(int64, int64) {})
	f.pause = time.Millisecond
	t.Cleanup(f.client.CloseIdleConnections)
	return f
}

// wantFile holds a file against what it must be.
func wantFile(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v; want %d", len(got), err, len(want))
	}
}

// wantNoneIn fails if there is anything in a directory.
func wantNoneIn(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) || len(entries) > 0 {
		t.Errorf("left in %s: %v, %v", dir, entries, err)
	}
}

func TestFetch(t *testing.T) {
	data := payload()
	half := len(data) / 2
	whole := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
	truncated := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:half]) // the client sees that it is too little
	}
	for name, c := range map[string]struct {
		answer func(n int, w http.ResponseWriter, r *http.Request)
		asked  []string
	}{
		"good": {func(_ int, w http.ResponseWriter, r *http.Request) { whole(w, r) }, []string{""}},
		"truncated, then the rest": {func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				truncated(w)
				return
			}
			whole(w, r)
		}, []string{"", fmt.Sprintf("bytes=%d-", half)}},
		"truncated, and ranges are ignored": {func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				truncated(w)
				return
			}
			_, _ = w.Write(data) // or the client notices
		}, []string{"", fmt.Sprintf("bytes=%d-", half)}},
		"truncated, then another part than was asked for": {func(n int, w http.ResponseWriter, r *http.Request) {
			switch n {
			case 1:
				truncated(w)
			case 2:
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 7-%d/%d", len(data)-1, len(data)))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(data[7:]) // not to be used
			default:
				whole(w, r)
			}
		}, []string{"", fmt.Sprintf("bytes=%d-", half), ""}},
		"redirecting": {func(_ int, w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/there" {
				http.Redirect(w, r, "/there", http.StatusFound)
				return
			}
			whole(w, r)
		}, []string{"", ""}},
		"busy at first": {func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			whole(w, r)
		}, []string{"", ""}},
		"of unknown length": {func(_ int, w http.ResponseWriter, _ *http.Request) {
			for at := 0; at < len(data); at += half {
				_, _ = w.Write(data[at:min(at+half, len(data))]) // or the client notices
				w.(http.Flusher).Flush()
			}
		}, []string{""}},
	} {
		t.Run(name, func(t *testing.T) {
			o, f := serve(t, c.answer), testFetcher(t)
			path, err := f.fetch(t.Context(), o.URL+"/a.bin", sum(data), 8<<20)
			if err != nil {
				t.Fatal(err)
			}
			wantFile(t, path, data)
			if got := o.asked(); strings.Join(got, "|") != strings.Join(c.asked, "|") {
				t.Errorf("asked for %q, want %q", got, c.asked)
			}
			if _, err := f.fetch(t.Context(), o.URL+"/a.bin", sum(data), 8<<20); err != nil || len(o.asked()) != len(c.asked) {
				t.Errorf("a second fetch: %v, asked %q", err, o.asked())
			}
			if err := f.forget(); err != nil {
				t.Error(err)
			}
			wantNoneIn(t, f.dir)
		})
	}
}

// TestFetchGoesOnWhereAnotherEnded: also a process that was killed.
func TestFetchGoesOnWhereAnotherEnded(t *testing.T) {
	data := payload()
	o := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	})
	for _, have := range []int{1000, len(data)} { // a part, and all of it
		f := testFetcher(t)
		if err := os.MkdirAll(f.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(f.dir, sum(data)+".part"), data[:have], 0o600); err != nil {
			t.Fatal(err)
		}
		path, err := f.fetch(t.Context(), o.URL, sum(data), 8<<20)
		if err != nil {
			t.Fatal(err)
		}
		wantFile(t, path, data)
		if got := o.asked(); got[len(got)-1] != fmt.Sprintf("bytes=%d-", have) {
			t.Errorf("asked for %q", got)
		}
	}
}

func TestFetchFails(t *testing.T) {
	data := payload()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) }) // before the servers close, which wait for their answers
	for name, c := range map[string]struct {
		answer func(n int, w http.ResponseWriter, r *http.Request)
		limit  int64
		want   string
		keeps  bool // a part to go on with
	}{
		"wrong digest": {func(_ int, w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(data[:1000]) // or the client notices
		}, 8 << 20, "it must be " + sum(data) + " and is " + sum(data[:1000]), false},
		"not found": {func(_ int, w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, 8 << 20, "404 Not Found", true},
		"too large, and says so": {func(_ int, w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(data) // or the client notices
		}, 1000, "larger than it may be", false},
		"too large, and does not say so": {func(_ int, w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = w.Write(data) // or the client notices
		}, 1 << 20, "larger than it may be", false},
		"always truncated at the same place": {func(_ int, w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			_, _ = w.Write(data[:100]) // the client sees that it is too little
		}, 8 << 20, "502 Bad Gateway", true},
		"slow": {func(_ int, w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "" {
				w.Header().Set("Content-Length", strconv.Itoa(len(data)))
				_, _ = w.Write(data[:100]) // and no more
				w.(http.Flusher).Flush()
			}
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}, 8 << 20, "the server said nothing for", true},
		"redirecting for ever": {func(_ int, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/again", http.StatusFound)
		}, 8 << 20, "stopped after 10 redirects", true},
	} {
		t.Run(name, func(t *testing.T) {
			o, f := serve(t, c.answer), testFetcher(t)
			f.silence = 100 * time.Millisecond
			if name != "slow" {
				f.silence = time.Minute
			}
			_, err := f.fetch(t.Context(), o.URL, sum(data), c.limit)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if !c.keeps {
				wantNoneIn(t, f.dir)
			}
			if _, err := os.Stat(filepath.Join(f.dir, sum(data))); err == nil {
				t.Error("there is a file of that digest")
			}
		})
	}
}

func TestFetchIsBoundedInTime(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	o := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	f := testFetcher(t)
	f.whole, f.silence = 50*time.Millisecond, time.Hour
	if _, err := f.fetch(t.Context(), o.URL, sum(nil), 1); err == nil || !strings.Contains(err.Error(), "it took more than") {
		t.Errorf("got %v", err)
	}
}

// TestFetchPausesBetweenTries: and goes on pausing no longer than it may.
func TestFetchPausesBetweenTries(t *testing.T) {
	o := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	f := testFetcher(t)
	f.pause = 20 * time.Millisecond
	began := time.Now()
	_, err := f.fetch(t.Context(), o.URL, sum(nil), 1)
	wantError(t, err, "503 Service Unavailable")
	if n, took := len(o.asked()), time.Since(began); n != f.tries || took < (2+4+8)*f.pause {
		t.Errorf("it was asked %d times in %v", n, took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.pause = time.Hour
	o.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		cancel()
	})
	if _, err := f.fetch(ctx, o.URL, sum(nil), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled in a pause: %v", err)
	}
}

// TestURLsAreShownWithoutSecrets: wherever one is told of.
func TestURLsAreShownWithoutSecrets(t *testing.T) {
	for address, want := range map[string]string{
		"https://a/b.tgz":                                   "https://a/b.tgz",
		"https://user:secret@a/b.tgz":                       "https://a/b.tgz",
		"https://secret@a:8443/b.tgz":                       "https://a:8443/b.tgz",
		"https://a/b.tgz?token=secret&x=1#secret":           "https://a/b.tgz?…",
		"https://a/%zz?secret":                              "(not a URL)",
		"nats://secret@127.0.0.1:4222":                      "nats://127.0.0.1:4222",
		"https://user:secret@a/v1/b.tgz?X-Signature=secret": "https://a/v1/b.tgz?…",
	} {
		if got := shown(address); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
	data := payload()[:1000]
	o := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good":
			_, _ = w.Write(data) // or the client notices
		case "/away":
			http.Redirect(w, r, "http://secret:secret@127.0.0.1:1/?secret", http.StatusFound)
		case "/bad":
			http.Redirect(w, r, "http://secret:secret@127.0.0.1:secret/", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	})
	base := strings.Replace(o.URL, "http://", "http://secret:secret@", 1)
	h := testHost(t)
	for _, path := range []string{"/good", "/away", "/bad", "/nothing"} {
		m := Manifest{[]Artifact{{Name: "ptp", URL: base + path + "?secret=1", SHA256: sum(data)}}}
		in := &Installer{Host: h, Manifest: m}
		s, err := in.Step(Finding{item: itemPtp})
		if err != nil {
			t.Fatal(err)
		}
		in.fetcher = testFetcher(t)
		err = in.Install(t.Context(), s)
		if (err == nil) != (path == "/good") {
			t.Errorf("%s: %v", path, err)
		}
		_, manifestErr := LoadManifest(t.Context(), base+path+"?secret=1")
		if manifestErr == nil {
			t.Errorf("%s is a manifest", path)
		}
		m.Artifacts[0].SHA256 = ""
		_, stepErr := (&Installer{Host: h, Manifest: m}).Step(Finding{item: itemPtp})
		for _, said := range []string{s.Text, fmt.Sprint(err), fmt.Sprint(manifestErr), fmt.Sprint(stepErr)} {
			if strings.Contains(said, "secret") || !strings.Contains(said, "127.0.0.1") && said != "<nil>" {
				t.Errorf("%s: said %s", path, said)
			}
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	}
	record, err := os.ReadFile(filepath.Join(h.StateDir, recordName))
	if err != nil || strings.Contains(string(record), "secret") || !strings.Contains(string(record), o.URL+"/good?…") {
		t.Errorf("recorded %s, %v", record, err)
	}
}
