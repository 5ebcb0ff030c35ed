package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"nex/internal/nextest"
)

// TestNkeyIsReadAgain: the server takes another key than the one that a connection
// began with, and the other is in its file.
func TestNkeyIsReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "user.nk")
	write := func() *server.NkeyUser {
		t.Helper()
		key, err := nkeys.CreateUser()
		if err != nil {
			t.Fatal(err)
		}
		public, _ := key.PublicKey()
		seed, _ := key.Seed()
		if err := os.WriteFile(file, seed, 0o600); err != nil {
			t.Fatal(err)
		}
		return &server.NkeyUser{Nkey: public}
	}
	config := server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, Nkeys: []*server.NkeyUser{write()}}
	srv, err := server.NewServer(config.Clone())
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()
	if !srv.ReadyForConnections(nextest.Patience) {
		t.Fatal("the server did not start")
	}

	t.Setenv("XDG_CONFIG_HOME", t.TempDir()) // no context is selected there
	o := connOptions{server: srv.ClientURL(), nkey: file, timeout: 2 * time.Second}
	url, options, err := o.resolve()
	if err != nil {
		t.Fatal(err)
	}
	again := make(chan struct{}, 16)
	nc, err := nats.Connect(url, append(options,
		nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectHandler(func(*nats.Conn) { again <- struct{}{} }))...)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for range 2 {
		config.Nkeys = []*server.NkeyUser{write()}
		config.Port = srv.Addr().(*net.TCPAddr).Port
		if err := srv.ReloadOptions(config.Clone()); err != nil { // ends the connections of who is no user any more
			t.Fatal(err)
		}
		nextest.Await(t, again, "the connection with the other key")
		if err := nc.FlushTimeout(nextest.Patience); err != nil {
			t.Fatal(err)
		}
	}
}
