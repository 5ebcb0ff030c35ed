//go:build unix

package rootfs

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"nex/internal/nextest"
)

// allocatedBytes returns what a file takes on the disk.
func allocatedBytes(t *testing.T, path string) int64 {
	t.Helper()
	var s syscall.Stat_t
	if err := syscall.Stat(path, &s); err != nil {
		t.Fatal(err)
	}
	return s.Blocks * 512
}

// builder returns a command that builds in a process of its own and prints the
// result, under a umask.
func builder(t testing.TB, umask string, in input) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/bin/sh", "-c", "umask "+umask+` && exec "$0"`, self)
	cmd.Env = append(os.Environ(), buildVariable+"="+string(text))
	return cmd
}

// TestEqualInputsMakeEqualBytes: under another umask, in another zone of the time, under another
// name and with temporary files elsewhere.
func TestEqualInputsMakeEqualBytes(t *testing.T) {
	dir := t.TempDir()
	script, base := filepath.Join(dir, "boot.sh"), filepath.Join(dir, "base.tar")
	in := input{Base: base, Script: script, Agent: nextest.StaticAgent(t), Size: 40 << 20}
	var sums []string
	for i, where := range []struct {
		umask, zone, language string
		mode                  os.FileMode // of the inputs, which is not theirs in the image
	}{{"022", "UTC", "C", 0o600}, {"077", "Asia/Kolkata", "tr_TR.UTF-8", 0o755}} {
		for name, data := range map[string][]byte{script: []byte("#!/bin/sh\n"), base: archive(t, alpineLike[0]...)} {
			if err := errors.Join(os.WriteFile(name, data, where.mode), os.Chmod(name, where.mode), os.Chtimes(name, time.Time{}, time.Now().AddDate(-i, 0, 0))); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"a.ext4", "b.ext4.gz"} {
			in.Output = filepath.Join(t.TempDir(), name)
			sums = append(sums, sumOf(t, builder(t, where.umask, in), "TZ="+where.zone, "LC_ALL="+where.language, "TMPDIR="+t.TempDir()))
		}
	}
	if sums[0] != sums[2] || sums[1] != sums[3] {
		t.Errorf("two builds differ: %q", sums)
	}
}

// sumOf returns the SHA-256 of what a builder builds.
func sumOf(t *testing.T, cmd *exec.Cmd, env ...string) string {
	t.Helper()
	var complaint bytes.Buffer
	cmd.Env, cmd.Stderr = append(cmd.Env, env...), &complaint
	out, err := cmd.Output()
	var r Result
	if err = errors.Join(err, json.Unmarshal(out, &r)); err != nil || r.SHA256 == "" {
		t.Fatalf("build: %v\n%s%s", err, out, &complaint)
	}
	return r.SHA256
}
