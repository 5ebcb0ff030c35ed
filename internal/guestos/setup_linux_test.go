package guestos

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestClockIsSetWhenItIsOff: by more than a second, either way; what was random is
// refreshed then, and only then.
func TestClockIsSetWhenItIsOff(t *testing.T) {
	own := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		ahead time.Duration
		fail  error
		set   bool
	}{
		{0, nil, false}, {time.Second, nil, false}, {-time.Second, nil, false},
		{1001 * time.Millisecond, nil, true}, {-2 * time.Second, nil, true}, {-40 * 365 * 24 * time.Hour, nil, true},
		{time.Hour, errors.New("no right to do so"), true},
	} {
		var got time.Time
		refreshed := false
		now := own.Add(c.ahead)
		setClock(now, own, func(t time.Time) error { got = t; return c.fail }, func() { refreshed = true })
		if c.set != got.Equal(now) || !c.set && !got.IsZero() || refreshed != (c.set && c.fail == nil) {
			t.Errorf("%s ahead: set to %v, refreshed %v", c.ahead, got, refreshed)
		}
	}
}

func TestResolvConfIsWrittenThroughALink(t *testing.T) {
	dir := t.TempDir()
	for link, target := range map[string]string{
		"relative": "run/a/resolv.conf", "absolute": filepath.Join(dir, "run/b/resolv.conf"), "plain": "",
	} {
		path := filepath.Join(dir, link)
		if target != "" {
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
		}
		for _, text := range []string{"nameserver 10.0.0.10\n", "nameserver 10.0.0.1\n"} {
			if err := writeResolvConf(path, text); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != text {
				t.Errorf("%s: %q, %v", link, got, err)
			}
		}
		if about, err := os.Lstat(path); err != nil || (about.Mode()&os.ModeSymlink != 0) != (target != "") {
			t.Errorf("%s is %v, %v", link, about.Mode(), err)
		}
	}
}

func TestHostsAreTheImages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etc", "hosts")
	if err := writeHosts(path, "guest7"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(got), "127.0.0.1 localhost\n") || !strings.Contains(string(got), " guest7\n") {
		t.Fatalf("%q, %v", got, err)
	}
	if err := writeHosts(path, "other"); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(path); err != nil || string(again) != string(got) {
		t.Errorf("hosts of an image became %q, %v", again, err)
	}
}

func TestBootScript(t *testing.T) {
	dir := t.TempDir()
	ran := filepath.Join(dir, "ran")
	path := filepath.Join(dir, "boot.sh")
	if err := runBootScript(path); err != nil {
		t.Errorf("no script: %v", err)
	}
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("echo once >> "+ran+"\n", 0o644)
	if err := runBootScript(path); err != nil {
		t.Errorf("not executable: %v", err)
	}
	if _, err := os.Stat(ran); !errors.Is(err, os.ErrNotExist) {
		t.Error("a script ran that is not executable")
	}
	write("echo once >> "+ran+"\n", 0o755)
	if err := runBootScript(path); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(ran); err != nil || string(got) != "once\n" {
		t.Errorf("it ran %q, %v", got, err)
	}
	write("exit 7\n", 0o755)
	if err := runBootScript(path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "7") {
		t.Errorf("failed with %v", err)
	}
}
