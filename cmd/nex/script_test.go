package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rogpeppe/go-internal/testscript"

	"nex"
	"nex/internal/confine"
	"nex/internal/nextest"
)

func TestMain(m *testing.M) {
	if err := confine.BeStep(); err != nil {
		os.Exit(1)
	}
	testscript.Main(checked{m}, map[string]func(){
		"nex":       main,
		"nex-agent": func() { os.Exit(nextest.RunAgent()) },
	})
}

// checked are tests that fail for what they leave.
type checked struct{ *testing.M }

func (c checked) Run() int { return nextest.Run(c.M) }

// TestScripts runs the user stories in testdata/script, each with a NATS
// server of its own at $NATS_URL, the stock nats CLI, and a free port $PORT.
func TestScripts(t *testing.T) {
	natsCLI := nextest.NATSCLI(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Condition:           condition,
		Setup: func(e *testscript.Env) error {
			return setUp(e, natsCLI)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"node":    awaitNode,
			"nodes":   awaitNodes,
			"answers": awaitAnswer,
			"replace": replaceFile,
			"serves":  serveFiles,
			"nothing": nothingLeft,
			"manager": startManager,
			"hears":   managerHears,
		},
	})
}

func setUp(e *testscript.Env, natsCLI string) error {
	store, err := os.MkdirTemp("", "nex-script-*")
	if err != nil {
		return err
	}
	srv, err := nextest.StartServer(store, server.RANDOM_PORT)
	if err != nil {
		return err
	}
	e.Defer(func() { srv.Shutdown(); srv.WaitForShutdown(); _ = os.RemoveAll(store) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_, port, _ := strings.Cut(l.Addr().String(), ":")
	if err := l.Close(); err != nil {
		return err
	}
	for _, dir := range []string{"home", "tmp"} {
		if err := os.Mkdir(filepath.Join(e.WorkDir, dir), 0o700); err != nil {
			return err
		}
	}
	e.Setenv("PATH", e.Getenv("PATH")+string(filepath.ListSeparator)+filepath.Dir(natsCLI))
	e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
	e.Setenv("TMPDIR", filepath.Join(e.WorkDir, "tmp"))
	e.Setenv("NATS_URL", srv.ClientURL())
	e.Setenv("PORT", port)
	e.Setenv("EXAMPLES", examplesDir())
	return nil
}

func examplesDir() string {
	dir, err := filepath.Abs("../../examples")
	if err != nil {
		panic(err)
	}
	return dir
}

// connect waits for the server a script talks to.
func connect(ts *testscript.TestScript, url string) *nats.Conn {
	nc, err := nats.Connect(url, nats.RetryOnFailedConnect(true), nats.ReconnectWait(20*time.Millisecond), nats.MaxReconnects(-1))
	ts.Check(err)
	return nc
}

// awaitNode [URL]: waits until a node answers and sets $NODE to its id.
func awaitNode(ts *testscript.TestScript, neg bool, args []string) {
	url := ts.Getenv("NATS_URL")
	if len(args) > 0 {
		url = args[0]
	}
	nc := connect(ts, url)
	defer nc.Close()
	client, err := nex.NewClient(nc, "")
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), nextest.Patience)
	defer cancel()
	for every := time.NewTicker(20 * time.Millisecond); ; {
		for n, err := range client.Nodes(ctx, nex.NodeFilter{}) {
			ts.Check(err)
			ts.Setenv("NODE", n.NodeID)
			every.Stop()
			return
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			ts.Fatalf("no node answers at %s", url)
		}
	}
}

// awaitNodes N: waits until as many nodes answer at $NATS_URL.
func awaitNodes(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: nodes N")
	}
	nc := connect(ts, ts.Getenv("NATS_URL"))
	defer nc.Close()
	client, err := nex.NewClient(nc, "")
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), nextest.Patience)
	defer cancel()
	for ctx.Err() == nil {
		nodes := 0
		for range client.Nodes(ctx, nex.NodeFilter{}) {
			nodes++
		}
		if strconv.Itoa(nodes) == args[0] {
			return
		}
	}
	ts.Fatalf("there never are %s nodes", args[0])
}

// awaitAnswer URL SUBJECT PAYLOAD WANT: asks until the answer is WANT.
func awaitAnswer(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 4 {
		ts.Fatalf("usage: answers URL SUBJECT PAYLOAD WANT")
	}
	nc := connect(ts, args[0])
	defer nc.Close()
	deadline := time.After(nextest.Patience)
	every := time.NewTicker(20 * time.Millisecond)
	defer every.Stop()
	got := ""
	for {
		m, err := nc.Request(args[1], []byte(args[2]), time.Second)
		if err == nil {
			got = string(m.Data)
		} else {
			got = err.Error()
		}
		if got == args[3] {
			return
		}
		select {
		case <-every.C:
		case <-deadline:
			ts.Fatalf("%s answers %q, want %q", args[1], got, args[3])
		}
	}
}

// replaceFile FROM TO: renames FROM over TO, as editors save.
func replaceFile(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(os.Rename(ts.MkAbs(args[0]), ts.MkAbs(args[1])))
}

// nothingLeft: no temporary file and no process of this script is left, or
// soon will be: what a killed process leaves ends after it.
func nothingLeft(ts *testscript.TestScript, neg bool, args []string) {
	deadline := time.After(nextest.Patience)
	every := time.NewTicker(20 * time.Millisecond)
	defer every.Stop()
	for {
		left := leftovers(ts)
		if len(left) == 0 {
			return
		}
		select {
		case <-every.C:
		case <-deadline:
			ts.Fatalf("left behind: %v", left)
		}
	}
}

func leftovers(ts *testscript.TestScript) (left []string) {
	entries, err := os.ReadDir(ts.MkAbs("tmp"))
	ts.Check(err)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	ts.Check(err)
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, ts.MkAbs("tmp")) {
			left = append(left, link+" in "+cwd)
		}
	}
	return left
}
