package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNoMachineLink: where there is no such device the wait ends, and says what was
// looked for.
func TestNoMachineLink(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	conn, err := MachineLink(ctx)
	if err == nil {
		_ = conn.Close()
		t.Fatal("this machine has a node outside of it")
	}
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "vsock") || !strings.Contains(err.Error(), "nex.link") {
		t.Error(err)
	}
}

// TestVsock carries bytes over the kernel's loopback of vsock, for which it must be
// built with CONFIG_VSOCKETS_LOOPBACK; many are not.
func TestVsock(t *testing.T) {
	listener, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skip("this kernel has no vsock: ", err)
	}
	defer unix.Close(listener)
	err = unix.Bind(listener, &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: unix.VMADDR_PORT_ANY})
	if err != nil {
		t.Skip("this kernel has no loopback of vsock (module vsock_loopback): ", err)
	}
	if err := unix.Listen(listener, 1); err != nil {
		t.Fatal(err)
	}
	address, err := unix.Getsockname(listener)
	if err != nil {
		t.Fatal(err)
	}
	s, err := dialVsock(unix.VMADDR_CID_LOCAL, address.(*unix.SockaddrVM).Port)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ECONNRESET) {
		t.Skip("this kernel has no loopback of vsock (module vsock_loopback): ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	fd, _, err := unix.Accept(listener)
	if err != nil {
		t.Fatal(err)
	}
	node, err := inherit(fd)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	for range 100 {
		if _, err := node.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Read(b); err != nil || string(b[:n]) != "ping" {
			t.Fatalf("%q, %v", b[:n], err)
		}
		if _, err := s.Write([]byte("pong")); err != nil {
			t.Fatal(err)
		}
		if n, err := node.Read(b); err != nil || string(b[:n]) != "pong" {
			t.Fatalf("%q, %v", b[:n], err)
		}
	}
	ended := make(chan error, 1)
	go func() { _, err := s.Read(b); ended <- err }()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	soonDone(t, "the reader of a closed socket", func() {
		if err := <-ended; err == nil {
			t.Error("read from a closed socket")
		}
	})
	if n, err := node.Read(b); n > 0 || err == nil {
		t.Errorf("%q, %v after the end", b[:n], err)
	}
	if err := node.Close(); err != nil {
		t.Error(err)
	}
}
