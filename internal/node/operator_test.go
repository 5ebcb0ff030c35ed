package node_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nex"
	"nex/internal/config"
	"nex/internal/nextest"
	"nex/internal/node"
)

// operated is a node and the lines of its log, at every level.
type operated struct {
	lines chan string
	ready chan nex.NodeInfo
	done  chan error
	end   context.CancelFunc
}

func operate(t *testing.T, cfg node.Config) *operated {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	o := &operated{lines: make(chan string, 10_000), ready: make(chan nex.NodeInfo, 1), done: make(chan error, 1), end: cancel}
	cfg.Log = slog.New(slog.NewTextHandler(writerFunc(func(p []byte) {
		o.lines <- string(p)
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg.Ready = func(n nex.NodeInfo) { o.ready <- n }
	if cfg.StateDir == "" {
		cfg.StateDir = t.TempDir()
	}
	cfg.Settings.PoolSize = 0
	go func() { o.done <- node.Run(ctx, cfg); close(o.done) }()
	t.Cleanup(func() { cancel(); nextest.Await(t, o.done, "the end of the node") })
	return o
}

// stop ends the node, which must not fail.
func (o *operated) stop(t *testing.T) {
	t.Helper()
	o.end()
	if err := nextest.Await(t, o.done, "the end of the node"); err != nil {
		t.Error(err)
	}
}

// line waits for a line of the log that matches.
func (o *operated) line(t *testing.T, pattern string) []string {
	t.Helper()
	want := regexp.MustCompile(pattern)
	for {
		if m := want.FindStringSubmatch(nextest.Await(t, o.lines, "a log line like "+pattern)); m != nil {
			return m
		}
	}
}

func loopbackServer(port int) *config.PublicServer {
	return &config.PublicServer{Options: server.Options{ServerName: "kitchen", Host: "127.0.0.1", Port: port, JetStream: true}}
}

// TestPublicServer runs a node on its own server, twice in one directory.
func TestPublicServer(t *testing.T) {
	s, dir := settings(t), t.TempDir()
	s.PublicServer = loopbackServer(server.RANDOM_PORT)
	for _, create := range []bool{true, false} {
		o := operate(t, node.Config{Settings: s, StateDir: dir})
		url := o.line(t, `"Public NATS server is listening" url=(nats://127.0.0.1:\d+) jetstream=true`)[1]
		id := nextest.Await(t, o.ready, "the node").NodeID
		nc, err := nats.Connect(url)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if nc.ConnectedServerName() != "kitchen" {
			t.Errorf("the server is called %q", nc.ConnectedServerName())
		}
		if _, err := nc.Request(nex.NodePingSubject(id), nil, nextest.Patience); err != nil {
			t.Errorf("the node does not listen on its server: %v", err)
		}
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		if create {
			_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "KEPT"})
		} else {
			_, err = js.Stream(t.Context(), "KEPT")
		}
		if err != nil {
			t.Errorf("stream, created now: %t: %v", create, err)
		}
		o.stop(t)
		if _, err := nats.Connect(url, nats.Timeout(nextest.Patience)); err == nil {
			t.Error("the server outlives its node")
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "nats", "jetstream")); err != nil {
		t.Errorf("the streams are not in the state directory: %v", err)
	}
}

// TestPublicServerBesideAnother has the node connect elsewhere.
func TestPublicServerBesideAnother(t *testing.T) {
	s := settings(t)
	s.PublicServer = loopbackServer(server.RANDOM_PORT)
	s.PublicServer.StoreDir = t.TempDir()
	srv := nextest.Server(t)
	o := operate(t, node.Config{Settings: s, Server: srv.ClientURL()})
	id := nextest.Await(t, o.ready, "the node").NodeID
	if _, err := nextest.Connect(t, srv).Request(nex.NodePingSubject(id), nil, nextest.Patience); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(s.PublicServer.StoreDir); err != nil || len(left) == 0 {
		t.Errorf("store_dir holds %v, %v", left, err)
	}
	o.stop(t)
}

func TestPublicServerThatCannotRun(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	number, _ := strconv.Atoi(port)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	noDir := loopbackServer(server.RANDOM_PORT)
	noDir.StoreDir = file
	badLeaf := loopbackServer(server.RANDOM_PORT)
	badLeaf.LeafNode = server.LeafNodeOpts{Host: "127.0.0.1", Port: number}
	badLimit := loopbackServer(server.RANDOM_PORT)
	badLimit.MaxPending, badLimit.MaxPayload = 10, 20
	for want, public := range map[string]*config.PublicServer{
		"address already in use": loopbackServer(number),
		"leafnode port":          badLeaf,
		"JetStream":              noDir,
		"max_payload":            badLimit,
	} {
		s := settings(t)
		s.PublicServer = public
		o := operate(t, node.Config{Settings: s})
		err := nextest.Await(t, o.done, "the refusal")
		if err == nil || !strings.HasPrefix(err.Error(), "public_nats_server: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestPublicServerForAllIsSaid(t *testing.T) {
	s := settings(t)
	s.PublicServer = loopbackServer(server.RANDOM_PORT)
	s.PublicServer.Host = "0.0.0.0"
	o := operate(t, node.Config{Settings: s})
	o.line(t, `level=WARN msg="The public NATS server takes everybody who reaches it" address=`)
	nextest.Await(t, o.ready, "the node")
	o.stop(t)
}

func TestNodeKeepsItsPidFile(t *testing.T) {
	srv, s := nextest.Server(t), settings(t)
	s.PidFile = filepath.Join(t.TempDir(), "nex.pid")
	first := operate(t, node.Config{Settings: s, Server: srv.ClientURL()})
	nextest.Await(t, first.ready, "the node")
	if pid, err := os.ReadFile(s.PidFile); string(pid) != fmt.Sprintln(os.Getpid()) {
		t.Errorf("the pid file holds %q, %v", pid, err)
	}
	second := operate(t, node.Config{Settings: s, Server: srv.ClientURL()})
	if err := nextest.Await(t, second.done, "the refusal"); err == nil || !strings.Contains(err.Error(), "another nex node runs with it") {
		t.Errorf("a second node got %v", err)
	}
	first.stop(t)
	if left, err := filepath.Glob(s.PidFile); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// published is a logger for NATS as text, errors apart.
func published(stdout, stderr io.Writer) *slog.Logger {
	return slog.New(slog.NewMultiHandler(
		slog.NewTextHandler(stdout, nil), slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelError})))
}

// TestSystemLogReachesNATS begins before there is NATS.
func TestSystemLogReachesNATS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	o := operate(t, node.Config{Settings: settings(t), Server: fmt.Sprintf("nats://127.0.0.1:%d", port), SystemLog: published})
	o.line(t, "NATS is not reachable, trying until it is")
	nc := nextest.Connect(t, nextest.ServerOn(t, port))
	lines := make(chan *nats.Msg, 1000)
	if _, err := nc.ChanSubscribe("$NEX.logs.system.>", lines); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	id := nextest.Await(t, o.ready, "the node").NodeID
	o.stop(t)
	for _, want := range []string{"without a sandbox", "NATS execution engine awaiting commands", "Node is stopping"} {
		for {
			m := nextest.Await(t, lines, "the line "+want)
			if m.Subject != "$NEX.logs.system."+id+".stdout" || bytes.Contains(m.Data, []byte("\n")) {
				t.Errorf("%s: %q", m.Subject, m.Data)
			}
			if bytes.Contains(m.Data, []byte(want)) {
				break
			}
		}
	}
}

func TestSystemLogEndsWithoutNATS(t *testing.T) {
	o := operate(t, node.Config{Settings: settings(t), Server: "nats://127.0.0.1:1", SystemLog: published})
	o.line(t, "NATS is not reachable, trying until it is")
	o.stop(t)
}

// TestSystemLogIsNotAboutItself runs a node that may not publish its log. Each
// line is refused, which is an error for the local log alone: published, it
// would be refused as well, for ever.
func TestSystemLogIsNotAboutItself(t *testing.T) {
	srv, err := node.StartServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(),
		Users: []*server.User{{Username: "node", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$NEX.logs.system.>"}},
		}}},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	tried := make(chan string, 10_000)
	o := operate(t, node.Config{
		Settings: settings(t), Server: srv.ClientURL(), Options: []nats.Option{nats.UserInfo("node", "p")},
		SystemLog: func(stdout, stderr io.Writer) *slog.Logger {
			return published(io.MultiWriter(stdout, writerFunc(func(p []byte) { tried <- string(p) })), stderr)
		},
	})
	nextest.Await(t, o.ready, "the node")
	o.line(t, `level=ERROR msg="NATS error" error=.*ermissions [vV]iolation for [pP]ublish to .*\$NEX\.logs\.system\.`)
	o.stop(t)
	for len(tried) > 0 {
		if line := <-tried; strings.Contains(line, "NATS error") || strings.Contains(line, "onnection") {
			t.Errorf("to be published: %s", line)
		}
	}
}
