package node_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nex"
	"nex/internal/config"
	"nex/internal/machine/firecracker/fcemu"
	"nex/internal/nextest"
	"nex/internal/node"
)

// guestTime is how long a guest whose processor is emulated may take to boot on a busy
// machine.
const guestTime = 2 * time.Minute

// TestNodeWithFirecracker runs a node whose machines are microVMs of an emulated
// Firecracker, in jails if it is root.
func TestNodeWithFirecracker(t *testing.T) {
	programs := fcemu.Install(t, nextest.Program(t, "qemu-system-x86_64"), "")
	s := config.Default()
	s.Sandbox, s.BinPath, s.HandshakeTimeout, s.PingTimeout = nex.SandboxFirecracker, []string{filepath.Dir(programs.Firecracker)}, guestTime, time.Minute
	s.ResourceDir = nextest.GuestImage(t, nextest.StaticAgent(t))
	s.RateLimiters.IOPS = config.Bucket{Size: 10_000, RefillTime: 100}
	s.Defaults.FunctionTimeoutMS = 60_000
	srv := nextest.Server(t)
	cfg := node.Config{
		Settings: s, Nexus: "test", Version: "test", StateDir: t.TempDir(), Server: srv.ClientURL(),
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	// What a machine of a node that was killed left.
	left := filepath.Join(cfg.StateDir, "machines", "left")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "firecracker", "left")
	if err := os.MkdirAll(filepath.Join(elsewhere, "root"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, "jail.json"), []byte(`{"root": "`+elsewhere+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan nex.NodeInfo, 1), make(chan error, 1)
	cfg.Ready = func(n nex.NodeInfo) { ready <- n }
	go func() { done <- node.Run(ctx, cfg) }()
	defer func() {
		cancel()
		if err := nextest.Await(t, done, "the node to end"); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(filepath.Join(cfg.StateDir, "machines")); err != nil || len(left) > 0 {
			t.Errorf("machines left behind: %v, %v", left, err)
		}
	}()
	var info nex.NodeInfo
	select {
	case info = <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("the node ended: %v", err)
	case <-time.After(guestTime):
		t.Fatal("the node is not ready")
	}
	if _, err := os.Stat(elsewhere); err == nil {
		t.Error("what was left of a machine is there")
	}
	if got := info.Tags[nex.TagVMM]; got != "Firecracker 1.12.0" {
		t.Errorf("the node says its machines are run by %q", got)
	}
	r := newClientRig(t, srv)
	r.node = info
	r.mustDeployJS(t, "echo", "js.echo", echo)
	for _, payload := range []string{"one", "two"} {
		if m := r.call(t, "js.echo", []byte(payload)); string(m.Data) != payload {
			t.Errorf("%q came back as %q", payload, m.Data)
		}
	}
}
