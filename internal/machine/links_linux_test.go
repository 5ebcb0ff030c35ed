package machine_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nex"
	"nex/internal/guest"
	"nex/internal/machine"
	"nex/internal/nextest"
)

// links are the ways in which a node and its agents are connected. What the
// tests here say holds for each of them.
var links = map[string]func(*machine.Processes) machine.Launcher{
	"socket pair": func(p *machine.Processes) machine.Launcher { return p },
	"pipes":       func(p *machine.Processes) machine.Launcher { return machine.Piped{Processes: p} },
}

func overEachLink(t *testing.T, test func(t *testing.T, link func(*machine.Processes) machine.Launcher)) {
	for name, link := range links {
		t.Run(name, func(t *testing.T) { test(t, link) })
	}
}

// runJS deploys a function that the tests of links call.
func runJS(t *testing.T, g *machine.Guest, script string, sink guest.Sink) {
	t.Helper()
	d := guest.Deploy{
		ID: "w", Name: "w", File: "w.js", Type: nex.V8, SHA256: sha256Hex(script),
		Settings: nex.Settings{Engine: nex.EngineQuickJS, FunctionMemoryMiB: 128},
	}
	if sink.Log == nil {
		sink.Log = func(slog.Level, string) {}
	}
	if err := g.Deploy(t.Context(), d, strings.NewReader(script), sink); err != nil {
		t.Fatal(err)
	}
}

// result is how a call ended.
type result struct {
	guest.Result
	err error
}

func invoke(g *machine.Guest, payload []byte, timeout time.Duration) <-chan result {
	done := make(chan result, 1)
	due := time.Now().Add(timeout + nextest.Patience/2) // so that it is the agent who sees that it is late
	g.Invoke(guest.Trigger{ID: "w", Subject: "s", Payload: payload, Timeout: timeout}, due, true, func(r guest.Result, err error) {
		done <- result{r, err}
	})
	return done
}

func TestLinkCarriesCalls(t *testing.T) {
	overEachLink(t, func(t *testing.T, link func(*machine.Processes) machine.Launcher) {
		g, _, _ := bootOn(t, plain(t), link)
		runJS(t, g, `(subject, payload) => payload`, guest.Sink{})
		for _, size := range []int{0, 1, 1 << 10, 256 << 10, 1<<20 + 1} {
			payload := make([]byte, size)
			_, _ = rand.Read(payload) // never fails
			if r := nextest.Await(t, invoke(g, payload, nextest.Patience), "a reply"); r.err != nil || !bytes.Equal(r.Payload, payload) {
				t.Errorf("%d bytes came back as %d, %v", size, len(r.Payload), r.err)
			}
		}
		var all sync.WaitGroup
		for i := range 500 {
			payload := []byte(strconv.Itoa(i))
			done := invoke(g, payload, nextest.Patience)
			all.Go(func() {
				if r := <-done; r.err != nil || !bytes.Equal(r.Payload, payload) {
					t.Errorf("%s came back as %q, %v", payload, r.Payload, r.err)
				}
			})
		}
		all.Wait()
	})
}

// TestLinkWaitsNoLongerThanACall: an agent whose reader waits for the node's
// answer to a host call sees the deadline pass, and lives.
func TestLinkWaitsNoLongerThanACall(t *testing.T) {
	overEachLink(t, func(t *testing.T, link func(*machine.Processes) machine.Launcher) {
		g, pid, _ := bootOn(t, plain(t), link)
		asked, end := make(chan struct{}, 100), make(chan struct{})
		defer close(end)
		sink := guest.Sink{Host: func(context.Context, guest.HostCall) (guest.Message, error) {
			asked <- struct{}{}
			<-end // whatever ctx says: the agent is on its own
			return guest.Message{}, nil
		}}
		runJS(t, g, `(subject, payload) => payload.length ? hostServices.kv.get("k") : "fine"`, sink)
		for range 20 { // quick calls, so that the reader works on them itself
			nextest.Await(t, invoke(g, nil, nextest.Patience), "a reply")
		}
		for range 3 {
			late := invoke(g, []byte("x"), 200*time.Millisecond)
			nextest.Await(t, asked, "the host call")
			if r := nextest.Await(t, late, "an answer"); r.err == nil || errors.Is(r.err, context.DeadlineExceeded) {
				t.Errorf("answered %q, %v", r.Payload, r.err)
			}
			if r := nextest.Await(t, invoke(g, nil, nextest.Patience), "a reply"); r.err != nil || string(r.Payload) != "fine" {
				t.Errorf("the next call: %q, %v", r.Payload, r.err)
			}
		}
		if _, alive := processes(t)[pid]; !alive {
			t.Error("the agent ended")
		}
	})
}

// TestPrintingDoesNotReachTheLink: what code and services print, in numbers too,
// is their log.
func TestPrintingDoesNotReachTheLink(t *testing.T) {
	overEachLink(t, func(t *testing.T, link func(*machine.Processes) machine.Launcher) {
		g, _, _ := bootOn(t, plain(t), link)
		lines := make(chan string, 5000)
		sink := guest.Sink{Log: func(_ slog.Level, text string) { lines <- text }, Exited: func(guest.Exit) {}}
		runJS(t, g, `() => { for (let i = 0; i < 100; i++) console.log("line") }`, sink)
		if r := nextest.Await(t, invoke(g, nil, nextest.Patience), "a reply"); r.err != nil {
			t.Error(r.err)
		}
		script := "#!/bin/sh\ncat\nfor i in $(seq 1000); do echo line; echo line >&2; done\n"
		d := guest.Deploy{ID: "s", Name: "s", Type: nex.Native, SHA256: sha256Hex(script)}
		if err := g.Deploy(t.Context(), d, strings.NewReader(script), sink); err != nil {
			t.Fatal(err)
		}
		for range 100 + 2000 {
			if line := nextest.Await(t, lines, "a line"); line != "line" {
				t.Fatalf("printed %q", line)
			}
		}
	})
}

// TestReleaseOfABusyMachine: calls hear of it, and the agent and its service
// are gone.
func TestReleaseOfABusyMachine(t *testing.T) {
	overEachLink(t, func(t *testing.T, link func(*machine.Processes) machine.Launcher) {
		g, pid, dir := bootOn(t, plain(t), link)
		asked := make(chan struct{}, 1)
		runJS(t, g, `() => hostServices.kv.get("k")`, guest.Sink{Host: func(ctx context.Context, _ guest.HostCall) (guest.Message, error) {
			asked <- struct{}{}
			<-ctx.Done()
			return guest.Message{}, ctx.Err()
		}})
		done := invoke(g, nil, nextest.Patience)
		nextest.Await(t, asked, "the host call")
		g.Release()
		if r := nextest.Await(t, done, "an answer"); nex.CodeOf(r.err) != nex.Unavailable {
			t.Errorf("the call: %v", r.err)
		}
		if _, alive := processes(t)[pid]; alive {
			t.Error("the agent is alive")
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// TestAgentEndsWithItsLink, and its service with it: so do they when the node is
// killed, where the kernel does not see to it.
func TestAgentEndsWithItsLink(t *testing.T) {
	overEachLink(t, func(t *testing.T, link func(*machine.Processes) machine.Launcher) {
		dir := t.TempDir()
		m, err := link(&machine.Processes{Agent: nextest.AgentPath(t), Dir: dir, Log: slog.New(slog.DiscardHandler)}).Launch(t.Context(), "m")
		if err != nil {
			t.Fatal(err)
		}
		c, err := guest.Greet(t.Context(), m.Link())
		if err != nil {
			t.Fatal(err)
		}
		script := "#!/bin/sh\necho $$\nexec sleep 1000\n"
		lines := make(chan string, 1)
		d := guest.Deploy{ID: "s", Name: "s", Type: nex.Native, SHA256: sha256Hex(script)}
		sink := guest.Sink{Log: func(_ slog.Level, text string) { lines <- text }, Exited: func(guest.Exit) {}}
		if err := c.Deploy(t.Context(), d, strings.NewReader(script), sink); err != nil {
			t.Fatal(err)
		}
		service, err := strconv.Atoi(nextest.Await(t, lines, "the service"))
		if err != nil {
			t.Fatal(err)
		}
		c.Close() // the link alone: nobody kills anything
		nextest.Await(t, m.Gone(), "the agent's end")
		if _, alive := processes(t)[service]; alive {
			t.Error("the service is alive")
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
}

// TestAgentsDiagnosticsAreLogged: what a program in the place of an agent says
// on its standard error.
func TestAgentsDiagnosticsAreLogged(t *testing.T) {
	overEachLink(t, func(t *testing.T, link func(*machine.Processes) machine.Launcher) {
		dir := t.TempDir()
		agent := filepath.Join(t.TempDir(), "agent")
		if err := os.WriteFile(agent, []byte("#!/bin/sh\necho no such luck >&2\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		read, write := io.Pipe()
		lines := make(chan string, 1)
		go func() {
			var log strings.Builder
			_, _ = io.Copy(&log, read) // a pipe's end is no error
			lines <- log.String()
		}()
		m, err := link(&machine.Processes{Agent: agent, Dir: dir, Log: slog.New(slog.NewTextHandler(write, nil))}).Launch(t.Context(), "m")
		if err != nil {
			t.Fatal(err)
		}
		nextest.Await(t, m.Gone(), "the program's end")
		if err := errors.Join(m.Destroy(t.Context()), write.Close()); err != nil {
			t.Error(err)
		}
		if log := nextest.Await(t, lines, "the log"); !strings.Contains(log, `msg="Agent says" machine=m text="no such luck"`) {
			t.Errorf("log: %s", log)
		}
	})
}
