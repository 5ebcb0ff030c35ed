package node

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func fill(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestPidFile begins with what may be at the path: nothing, or what a node
// left that was killed. That its process id is somebody else's now, here the
// test's own, stops nobody.
func TestPidFile(t *testing.T) {
	pid := strconv.Itoa(os.Getpid())
	for name, before := range map[string]string{
		"empty": "", "stale": "123456789", "living process": pid + "\n", "Nex 0.2.7": "1", "longer": strings.Repeat("1", 19) + "\n\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "nex.pid")
			if before != "" {
				fill(t, path, before)
			}
			p, err := writePid(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := content(t, path); got != pid+"\n" {
				t.Errorf("the file holds %q, want %s", got, pid)
			}
			if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if err := p.remove(); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the file is left: %v", err)
			}
		})
	}
}

func TestPidFileOfRunningNode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nex.pid")
	first, err := writePid(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = writePid(path)
	want := "another nex node runs with it (process " + strconv.Itoa(os.Getpid()) + ")"
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want %s", err, want)
	}
	if got := content(t, path); got != strconv.Itoa(os.Getpid())+"\n" {
		t.Errorf("the file holds %q now", got)
	}
	if err := first.remove(); err != nil {
		t.Fatal(err)
	}
	second, err := writePid(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.remove(); err != nil {
		t.Error(err)
	}
}

// TestPidFileLeavesOthersAlone tries what is not a pid file of ours.
func TestPidFileLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	fill(t, at("precious"), "precious")
	fill(t, at("number"), "4711")
	fill(t, at("long"), "1"+strings.Repeat(" ", 100)+"x")
	for link, target := range map[string]string{"link": "precious", "link to number": "number", "dangling": "nothing", "link to directory": "."} {
		if err := os.Symlink(target, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"precious": "something else", "long": "something else", "link": "no regular file", "link to number": "no regular file",
		"dangling": "no regular file", "link to directory": "no regular file", ".": "no regular file", "missing/nex.pid": "no such file",
	} {
		if p, err := writePid(at(name)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v; want %q", name, p, err, want)
		}
	}
	if got := content(t, at("precious")) + content(t, at("number")); got != "precious4711" {
		t.Errorf("the files hold %q now", got)
	}
	if _, err := os.Lstat(at("nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dangling link's target was made: %v", err)
	}
}

func TestPidFileOfAnotherIsNotRemoved(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "nex.pid")
	p, err := writePid(path)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, filepath.Join(dir, "other"), "4711")
	if err := os.Rename(filepath.Join(dir, "other"), path); err != nil {
		t.Fatal(err)
	}
	if err := p.remove(); err != nil {
		t.Error(err)
	}
	if got := content(t, path); got != "4711" {
		t.Errorf("the file holds %q now", got)
	}
}

// TestPidFileHasOneOwner lets many take and give up one file.
func TestPidFileHasOneOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nex.pid")
	var owners, taken atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				p, err := writePid(path)
				if err != nil {
					continue
				}
				taken.Add(1)
				if n := owners.Add(1); n != 1 || !p.isOurs() {
					t.Errorf("%d own the file, which is this one's: %t", n, p.isOurs())
				}
				owners.Add(-1)
				if err := p.remove(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if taken.Load() == 0 {
		t.Error("nobody ever got the file")
	}
}
