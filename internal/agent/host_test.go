package agent_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
)

// serviceVariable makes this test binary a service, and says what it does.
const serviceVariable = "AGENT_TEST_SERVICE"

// service is the artifact of a native service that runs beService.
func service(t *testing.T, does string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("#!/bin/sh\n%s=%s exec '%s'\n", serviceVariable, does, self)
}

// beService is what the services of these tests do; it returns the exit code.
func beService(does string) int {
	if does == "listen" {
		return listen()
	}
	path := os.Getenv("NEX_HOST_SERVICES")
	fmt.Println("socket", path)
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	ask := func(method, path, body string) {
		r, err := http.NewRequest(method, "http://nex"+path, strings.NewReader(body))
		if err != nil {
			fmt.Println(err)
			return
		}
		resp, err := c.Do(r)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		fmt.Println(resp.StatusCode, resp.Header.Get("Nex-Revision"), string(got), err)
	}
	switch does {
	case "talk":
		ask(http.MethodPut, "/v1/kv/a%2Fb", "value")
		ask(http.MethodGet, "/v1/kv/missing", "")
	case "wait":
		ask(http.MethodGet, "/v1/kv/silent", "")
	case "leave": // while a call is under way
		go ask(http.MethodGet, "/v1/kv/silent", "")
		ask(http.MethodGet, "/v1/kv/other", "")
		ask(http.MethodGet, "/v1/kv/asked", "")
	}
	return 0
}

// hostedService is a service, and what its node sees of it.
type hostedService struct {
	lines chan string
	calls chan guest.HostCall
	ended chan struct{} // one for each call for the key "silent" that was given up
	exits chan guest.Exit
}

// deployHosted starts a service whose environment tries to name another socket.
func deployHosted(t *testing.T, c *guest.Client, content string) hostedService {
	t.Helper()
	s := hostedService{make(chan string, 10), make(chan guest.HostCall, 10), make(chan struct{}, 10), make(chan guest.Exit, 1)}
	silent := make(chan struct{}, 10)
	sink := guest.Sink{
		Log:    func(_ slog.Level, text string) { s.lines <- text },
		Exited: func(e guest.Exit) { s.exits <- e },
		Host: func(ctx context.Context, call guest.HostCall) (guest.Message, error) {
			s.calls <- call
			switch call.Args["key"] {
			case "silent":
				silent <- struct{}{}
				<-ctx.Done()
				s.ended <- struct{}{}
			case "asked": // once silent is
				<-silent
			case "missing":
				return guest.Message{}, nex.Errorf(nex.NotFound, "no such key")
			}
			return guest.Message{Args: map[string]string{"revision": "5"}}, nil
		},
	}
	sum := sha256.Sum256([]byte(content))
	err := c.Deploy(t.Context(), guest.Deploy{
		ID: "w", Name: "w", File: "w", Type: nex.Native, SHA256: hex.EncodeToString(sum[:]),
		Environment: map[string]string{"NEX_HOST_SERVICES": "/elsewhere", "nex_host_services": "/nowhere"},
	}, strings.NewReader(content), sink)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// socket returns the path that the service was told.
func (s hostedService) socket(t *testing.T) string {
	t.Helper()
	path, ok := strings.CutPrefix(nextest.Await(t, s.lines, "the socket's path"), "socket ")
	if !ok || !filepath.IsAbs(path) {
		t.Fatalf("socket %q", path)
	}
	return path
}

func gone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", path, err)
	}
}

func TestServiceAsksHostServices(t *testing.T) {
	c, dir := start(t)
	s := deployHosted(t, c, service(t, "talk"))
	s.socket(t)
	for _, want := range []string{"204 5  <nil>", `404  {"code":"not_found","message":"no such key"}`} {
		if got := nextest.Await(t, s.lines, "a line"); strings.TrimSpace(got) != want {
			t.Errorf("line %q, want %q", got, want)
		}
	}
	call := nextest.Await(t, s.calls, "a call")
	if call.ID != "w" || call.Service != "kv" || call.Method != "set" || call.Args["key"] != "a/b" || string(call.Payload) != "value" {
		t.Errorf("asked %+v", call)
	}
	if call.Timeout != time.Minute {
		t.Errorf("timeout %s", call.Timeout)
	}
	if e := nextest.Await(t, s.exits, "the exit"); e.Code != 0 {
		t.Errorf("exit %+v", e)
	}
	gone(t, filepath.Join(dir, "w"))
}

func TestSocketOfAService(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, c *guest.Client){
		"undeploy": func(t *testing.T, c *guest.Client) {
			if err := c.Undeploy(t.Context(), "w"); err != nil {
				t.Fatal(err)
			}
		},
		"end of the agent": func(_ *testing.T, c *guest.Client) { c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			c, dir := start(t)
			s := deployHosted(t, c, service(t, "wait"))
			path := s.socket(t)
			nextest.Await(t, s.calls, "a call")
			for p, want := range map[string]fs.FileMode{path: fs.ModeSocket | 0o600, filepath.Dir(path): fs.ModeDir | 0o700} {
				if info, err := os.Stat(p); err != nil || info.Mode() != want {
					t.Errorf("%s: %v, %v; want mode %s", p, info, err, want)
				}
			}
			if got := filepath.Dir(path); got != filepath.Join(dir, "w") && len(dir) < 80 {
				t.Errorf("socket in %s", got)
			}
			end(t, c)
			nextest.Await(t, s.ended, "the call to end")
			if name == "undeploy" { // the agent ends in its own time, and start looks then
				gone(t, path)
			}
		})
	}
}

// TestServiceThatLeavesDuringACall: the call ends with the service.
func TestServiceThatLeavesDuringACall(t *testing.T) {
	c, dir := start(t)
	s := deployHosted(t, c, service(t, "leave"))
	nextest.Await(t, s.exits, "the exit")
	nextest.Await(t, s.ended, "the call to end")
	gone(t, filepath.Join(dir, "w"))
}

func TestSocketInALongDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := startIn(t, dir)
	s := deployHosted(t, c, service(t, "talk"))
	path := s.socket(t)
	if len(path) > 103 {
		t.Errorf("socket %s", path)
	}
	if got := nextest.Await(t, s.lines, "a line"); !strings.HasPrefix(got, "204") {
		t.Errorf("line %q", got)
	}
	nextest.Await(t, s.exits, "the exit")
}

// TestServiceThatDoesNotStartLeavesNoSocket relies on start to find what is
// left, in the directory and of goroutines.
func TestServiceThatDoesNotStartLeavesNoSocket(t *testing.T) {
	c, _ := start(t)
	if err := deploy(t.Context(), c, "w", nex.Native, "no program", guest.Sink{}); nex.CodeOf(err) != nex.Invalid {
		t.Errorf("got %v", err)
	}
}

// readerFunc is a function that reads.
type readerFunc func() (int, error)

func (f readerFunc) Read([]byte) (int, error) { return f() }

// TestServiceWithoutASocket starts all the same, and its log says what it lacks.
func TestServiceWithoutASocket(t *testing.T) {
	c, dir := start(t)
	content := "#!/bin/sh\necho \"has ${NEX_HOST_SERVICES:-nothing}\"\nexit 0\n" + strings.Repeat("#", 300<<10)
	sum := sha256.Sum256([]byte(content))
	lines := make(chan string, 10)
	inTheWay := readerFunc(func() (int, error) { // the first piece is there, and so is the directory
		return 0, errors.Join(os.WriteFile(filepath.Join(dir, "w", "host"), nil, 0o600), io.EOF)
	})
	err := c.Deploy(t.Context(), guest.Deploy{ID: "w", Name: "w", Type: nex.Native, SHA256: hex.EncodeToString(sum[:])},
		io.MultiReader(strings.NewReader(content), inTheWay), guest.Sink{
			Log:    func(level slog.Level, text string) { lines <- level.String() + " " + text },
			Exited: func(guest.Exit) {},
		})
	if err != nil {
		t.Fatal(err)
	}
	if got := nextest.Await(t, lines, "a warning"); !strings.HasPrefix(got, "WARN this service has no host services: make socket for host services: ") {
		t.Errorf("line %q", got)
	}
	if got := nextest.Await(t, lines, "a line"); got != "INFO has nothing" {
		t.Errorf("line %q", got)
	}
}
