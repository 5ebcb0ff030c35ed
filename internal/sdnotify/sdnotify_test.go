package sdnotify_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"nex/internal/nextest"
	"nex/internal/sdnotify"
)

func TestMain(m *testing.M) { nextest.Main(m) }

// manager listens as a service manager does, and returns what it hears.
func manager(t *testing.T, name string) <-chan string {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	heard, done := make(chan string, 100), make(chan struct{})
	t.Cleanup(func() { _ = conn.Close(); <-done })
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
	return heard
}

// sockets are the two kinds of address.
func sockets(t *testing.T) []string {
	names := []string{filepath.Join(t.TempDir(), "notify")}
	if runtime.GOOS == "linux" {
		names = append(names, fmt.Sprintf("@nex-test-%d", os.Getpid()))
	}
	return names
}

func TestMessages(t *testing.T) {
	for _, name := range sockets(t) {
		heard := manager(t, name)
		t.Setenv("NOTIFY_SOCKET", name)
		n, err := sdnotify.FromEnvironment()
		if err != nil {
			t.Fatal(err)
		}
		for want, say := range map[string]func() error{
			"READY=1\nSTATUS=one line": func() error { return n.Ready("one\nline") },
			"STATUS=MAINPID=1":         func() error { return n.Status("\nMAINPID=1") },
			"WATCHDOG=1":               n.Alive,
			"STOPPING=1\nEXTEND_TIMEOUT_USEC=1500000\nSTATUS=ends": func() error { return n.Stopping(1500*time.Millisecond, "ends") },
		} {
			if err := say(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if got := nextest.Await(t, heard, "a message"); got != want {
				t.Errorf("%s: heard %q, want %q", name, got, want)
			}
		}
	}
}

func TestWatchdog(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for name, tc := range map[string]struct {
		usec, pid string
		want      time.Duration
		bad       string
	}{
		"none":            {},
		"of this process": {usec: "3000000", pid: own, want: 1500 * time.Millisecond},
		"of no process":   {usec: "3000000", want: 1500 * time.Millisecond},
		"of another":      {usec: "3000000", pid: own + "1"},
		"no number":       {usec: "soon", bad: "WATCHDOG_USEC"},
		"too large":       {usec: "9223372036854775807", bad: "WATCHDOG_USEC"},
		"negative":        {usec: "-1", bad: "WATCHDOG_USEC"},
	} {
		t.Setenv("NOTIFY_SOCKET", "/nowhere")
		t.Setenv("WATCHDOG_USEC", tc.usec)
		t.Setenv("WATCHDOG_PID", tc.pid)
		n, err := sdnotify.FromEnvironment()
		if (err != nil) != (tc.bad != "") || err != nil && !strings.Contains(err.Error(), tc.bad) {
			t.Errorf("%s: %v", name, err)
		} else if n.Watchdog() != tc.want {
			t.Errorf("%s: %s, want %s", name, n.Watchdog(), tc.want)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	n, err := sdnotify.FromEnvironment()
	if n != nil || err != nil || n.Ready("ready") != nil || n.Stopping(time.Second, "") != nil || n.Watchdog() != 0 {
		t.Errorf("without a manager: %v, %v", n, err)
	}
	t.Setenv("NOTIFY_SOCKET", "vsock:2:1234")
	if _, err := sdnotify.FromEnvironment(); err == nil {
		t.Error("an address of another kind is taken")
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	if n, err = sdnotify.FromEnvironment(); err != nil {
		t.Fatal(err)
	}
	if err := n.Ready("ready"); err == nil {
		t.Error("nobody listens, and that is no error")
	}
}

// TestManagerThatDoesNotRead: what it does not read holds up nobody for long.
func TestManagerThatDoesNotRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	n, err := sdnotify.FromEnvironment()
	if err != nil {
		t.Fatal(err)
	}
	late := make(chan error, 1)
	go func() {
		for {
			if err := n.Alive(); err != nil {
				late <- err
				return
			}
		}
	}()
	if err := nextest.Await(t, late, "an error"); !os.IsTimeout(err) && !strings.Contains(err.Error(), "timeout") {
		t.Error(err)
	}
	begin := time.Now() // who tells of progress may hold up others meanwhile
	if err := n.Status("drains"); err == nil || time.Since(begin) > 900*time.Millisecond {
		t.Errorf("status after %s: %v", time.Since(begin), err)
	}
}
