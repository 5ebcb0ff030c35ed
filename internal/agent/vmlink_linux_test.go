package agent

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
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
	node, err := newStream(fd, fd, "vsock")
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

// TestOpenPort finds the port of the right name among others, with a terminal in the
// place of its device.
func TestOpenPort(t *testing.T) {
	host, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close() // it is closed by then, unless the test ends early
	number, err := unix.IoctlGetInt(int(host.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(host.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	ports, devices := t.TempDir(), t.TempDir()
	if _, err := openPort(ports, devices); err == nil {
		t.Error("opened a port where there is none")
	}
	for dir, name := range map[string]string{"vport0p0": "org.other\n", "vport0p1": "nex.link\n", "vport1p0": "nex.link.2\n"} {
		if err := errors.Join(os.Mkdir(filepath.Join(ports, dir), 0o700), os.WriteFile(filepath.Join(ports, dir, "name"), []byte(name), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := openPort(ports, devices); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a port without a device: %v", err)
	}
	if err := os.Symlink("/dev/pts/"+strconv.Itoa(number), filepath.Join(devices, "vport0p1")); err != nil {
		t.Fatal(err)
	}
	p, err := openPort(ports, devices)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := host.WriteString("to the guest\n"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, err := p.Read(b); err != nil || !bytes.Equal(b[:n], []byte("to the guest\n")) {
		t.Errorf("%q, %v", b[:n], err)
	}
	if !connected(p.in) {
		t.Error("not connected")
	}
	if err := host.Close(); err != nil {
		t.Fatal(err)
	}
	if connected(p.in) {
		t.Error("still connected when the host has closed its end")
	}
}

// TestDeviceIsMade where there is none yet: one like /dev/null.
func TestDeviceIsMade(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make devices")
	}
	dir := t.TempDir()
	numbers := filepath.Join(dir, "dev")
	if err := os.WriteFile(numbers, []byte("1:3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "vport0p1")
	if err := makeDevice(path, numbers); err != nil {
		t.Fatal(err)
	}
	var made, null unix.Stat_t
	if err := errors.Join(unix.Stat(path, &made), unix.Stat(os.DevNull, &null)); err != nil {
		t.Fatal(err)
	}
	if made.Rdev != null.Rdev || made.Mode != unix.S_IFCHR|0o600 {
		t.Errorf("made %x with mode %o, want %x", made.Rdev, made.Mode, null.Rdev)
	}
}
