package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"nex/internal/nextest"
)

// managers are the service managers of the scripts that run, by the name of
// their sockets.
var managers sync.Map

// startManager [abstract]: listens as systemd does, on a socket whose name is
// in $NOTIFY_SOCKET from here on.
func startManager(ts *testscript.TestScript, neg bool, args []string) {
	dir, err := os.MkdirTemp("", "nex-notify-*") // short enough for a socket
	ts.Check(err)
	name := filepath.Join(dir, "notify")
	if len(args) > 0 && args[0] == "abstract" {
		name = "@" + name
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	ts.Check(err)
	heard, done := make(chan string, 10_000), make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 4096); ; {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			heard <- string(b[:n])
		}
	}()
	ts.Defer(func() { _ = conn.Close(); <-done; _ = os.RemoveAll(dir) })
	managers.Store(name, heard)
	ts.Setenv("NOTIFY_SOCKET", name)
}

// managerHears LINE…: waits for one message that holds all these lines, each to
// its end or, where it ends with *, up to there.
func managerHears(ts *testscript.TestScript, neg bool, args []string) {
	of, ok := managers.Load(ts.Getenv("NOTIFY_SOCKET"))
	if !ok || len(args) == 0 {
		ts.Fatalf("usage: manager, then hears LINE…")
	}
	var heard []string
	for deadline := time.After(nextest.Patience); ; {
		select {
		case message := <-of.(chan string):
			if heard = append(heard, message); hasLines(message, args) {
				ts.Logf("heard %q", message)
				return
			}
		case <-deadline:
			ts.Fatalf("no message with %q; heard %q", args, heard)
		}
	}
}

func hasLines(message string, want []string) bool {
	for _, w := range want {
		found := false
		for _, line := range strings.Split(message, "\n") {
			start, part := strings.CutSuffix(w, "*")
			found = found || line == w || part && strings.HasPrefix(line, start)
		}
		if !found {
			return false
		}
	}
	return true
}

// TestUnitIsSound has systemd read the unit that is shipped, with this test in
// the place of nex.
func TestUnitIsSound(t *testing.T) {
	analyze, err := findAnalyze()
	if err != nil {
		t.Skip(err)
	}
	unit, err := os.ReadFile("../../packaging/systemd/nex-node.service")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "nex-node.service")
	text := strings.ReplaceAll(string(unit), "/usr/local/bin/nex ", self+" ")
	if text == string(unit) {
		t.Error("the unit does not start /usr/local/bin/nex")
	}
	for name, tc := range map[string]struct {
		text  string
		sound bool
	}{"as shipped": {text, true}, "with a fault": {strings.Replace(text, "KillMode=mixed", "KillMood=mixed", 1), false}} {
		if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out := analyze(t, path); (out == "") != tc.sound {
			t.Errorf("%s: %q", name, out)
		}
	}
}

// findAnalyze returns what systemd-analyze says of a unit file.
func findAnalyze() (func(*testing.T, string) string, error) {
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return nil, err
	}
	return func(t *testing.T, path string) string {
		out, err := exec.CommandContext(t.Context(), program, "verify", path).CombinedOutput()
		if err != nil && len(out) == 0 {
			t.Fatal(err)
		}
		return string(out)
	}, nil
}
