package agent_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"nex"
	"nex/internal/agent"
	"nex/internal/guest"
	"nex/internal/nextest"
)

func TestMain(m *testing.M) {
	if does := os.Getenv(serviceVariable); does != "" {
		os.Exit(beService(does))
	}
	nextest.Main(m)
}

// start runs an agent in this process and returns its node's end.
func start(t *testing.T) (c *guest.Client, dir string) {
	t.Helper()
	dir = t.TempDir()
	return startIn(t, dir), dir
}

// startIn is start in a given directory.
func startIn(t *testing.T, dir string) *guest.Client {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- agent.Run(context.Background(), far, agent.Config{Version: "test", Dir: dir, Quit: func() { t.Error("the agent gave up") }})
	}()
	c, err := guest.Greet(t.Context(), near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if err := nextest.Await(t, done, "the agent to end"); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	return c
}

func deploy(ctx context.Context, c *guest.Client, id string, typ nex.WorkloadType, content string, sink guest.Sink) error {
	sum := sha256.Sum256([]byte(content))
	if sink.Log == nil {
		sink.Log = func(slog.Level, string) {}
	}
	return c.Deploy(ctx, guest.Deploy{ID: id, Name: "w", File: "w.js", Type: typ, SHA256: hex.EncodeToString(sum[:])}, strings.NewReader(content), sink)
}

func invoke(t *testing.T, c *guest.Client, id, payload string) (string, error) {
	t.Helper()
	type answer struct {
		r   guest.Result
		err error
	}
	answered := make(chan answer, 1)
	tr := guest.Trigger{ID: id, Subject: "s", Payload: []byte(payload), Timeout: nextest.Patience}
	c.Invoke(tr, time.Now().Add(nextest.Patience), true, func(r guest.Result, err error) { answered <- answer{r, err} })
	a := nextest.Await(t, answered, "an answer")
	return string(a.r.Payload), a.err
}

func TestFunctionsSideBySide(t *testing.T) {
	c, _ := start(t)
	for id, script := range map[string]string{"a": `() => "A"`, "b": `() => "B"`} {
		if err := deploy(t.Context(), c, id, nex.V8, script, guest.Sink{}); err != nil {
			t.Fatal(err)
		}
	}
	for id, want := range map[string]string{"a": "A", "b": "B"} {
		if got, err := invoke(t, c, id, ""); err != nil || got != want {
			t.Errorf("%s: %q, %v", id, got, err)
		}
	}
	if err := c.Undeploy(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := invoke(t, c, "a", ""); nex.CodeOf(err) != nex.NotFound {
		t.Errorf("after its end: %v", err)
	}
	if got, err := invoke(t, c, "b", ""); err != nil || got != "B" {
		t.Errorf("the other one: %q, %v", got, err)
	}
	if err := c.Undeploy(t.Context(), "a"); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestArtifactThatIsNotWhatWasAnnounced(t *testing.T) {
	c, dir := start(t)
	sink := guest.Sink{Log: func(slog.Level, string) {}}
	err := c.Deploy(t.Context(), guest.Deploy{ID: "w", Type: nex.V8, SHA256: strings.Repeat("0", 64)}, strings.NewReader("() => 1"), sink)
	if nex.CodeOf(err) != nex.Invalid {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := deploy(t.Context(), c, "w", nex.V8, "", guest.Sink{}); nex.CodeOf(err) != nex.Invalid || !strings.Contains(err.Error(), "empty") {
		t.Errorf("empty: %v", err)
	}
}

// TestRefusals fixes the words that clients of Nex 0.2.7 know.
func TestRefusals(t *testing.T) {
	c, _ := start(t)
	for typ, want := range map[nex.WorkloadType]struct{ content, text string }{
		nex.V8:     {"let = 1", "Failed to validate workload: failed to compile source for execution: "},
		nex.Wasm:   {"hello", "Failed to validate workload: failed to compile module: "},
		nex.Native: {"hello", "Failed to validate workload: native binary is not an executable: "},
	} {
		err := deploy(t.Context(), c, "w", typ, want.content, guest.Sink{})
		if nex.CodeOf(err) != nex.Invalid || !strings.HasPrefix(err.Error(), want.text) {
			t.Errorf("%s: %v (%s), want %s", typ, err, nex.CodeOf(err), want.text)
		}
	}
}

// TestUndeployEndsALoad takes back a script whose top level never ends.
func TestUndeployEndsALoad(t *testing.T) {
	c, _ := start(t)
	failed := make(chan error, 1)
	go func() {
		failed <- deploy(context.Background(), c, "w", nex.V8, `console.log("here"); for (;;);`, guest.Sink{})
	}()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), nextest.Patience)
		err := c.Undeploy(ctx, "w")
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-failed:
			if err == nil {
				t.Error("deployed")
			}
			return
		case <-time.After(10 * time.Millisecond): // it may not have begun yet
		}
	}
}

func TestServiceThatEndsByItself(t *testing.T) {
	c, dir := start(t)
	exits := make(chan guest.Exit, 1)
	lines := make(chan string, 10)
	sink := guest.Sink{
		Log:    func(level slog.Level, text string) { lines <- level.String() + " " + text },
		Exited: func(e guest.Exit) { exits <- e },
	}
	if err := deploy(t.Context(), c, "w", nex.Native, "#!/bin/sh\necho out\nexit 3\n", sink); err != nil {
		t.Fatal(err)
	}
	if got := nextest.Await(t, lines, "a line"); got != "INFO out" {
		t.Errorf("line %q", got)
	}
	if e := nextest.Await(t, exits, "the exit"); e.Code != 3 || e.Message != "exit status 3" {
		t.Errorf("exit %+v", e)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestStoppedServiceSendsNoExit(t *testing.T) {
	c, _ := start(t)
	sink := guest.Sink{Exited: func(e guest.Exit) { t.Errorf("exit %+v", e) }}
	if err := deploy(t.Context(), c, "w", nex.Native, "#!/bin/sh\nsleep 1000\n", sink); err != nil {
		t.Fatal(err)
	}
	if err := c.Undeploy(t.Context(), "w"); err != nil {
		t.Fatal(err)
	}
}

func TestUnknownType(t *testing.T) {
	c, _ := start(t)
	if err := deploy(t.Context(), c, "w", "oci", "x", guest.Sink{}); nex.CodeOf(err) != nex.Unsupported {
		t.Errorf("got %v", err)
	}
}
