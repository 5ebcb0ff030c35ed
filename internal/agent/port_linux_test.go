package agent

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// portPair is a port, with a socket in the place of the device, and the node's end.
func portPair(t *testing.T) (*port, net.Conn) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPort(pair[0], "/dev/vport0p1")
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(pair[1]), "node")
	node, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(); _ = node.Close() }) // most are closed by then
	return p, node
}

// soonDone fails the test if f takes too long.
func soonDone(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { f(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("waited in vain for " + what)
	}
}

// TestPortCarriesAllBothWays: pieces of all sizes, in both directions at once.
func TestPortCarriesAllBothWays(t *testing.T) {
	p, node := portPair(t)
	const total = 8 << 20
	var wg sync.WaitGroup
	send := func(w io.Writer, seed uint64, sum *[32]byte) {
		random := rand.New(rand.NewPCG(seed, 0))
		hash := sha256.New()
		for left := total; left > 0; {
			b := make([]byte, min(left, 1+random.IntN(1<<(1+random.IntN(18)))))
			for i := range b {
				b[i] = byte(random.Uint32())
			}
			_, _ = hash.Write(b)
			if _, err := w.Write(b); err != nil {
				t.Error(err)
				return
			}
			left -= len(b)
		}
		hash.Sum(sum[:0])
	}
	receive := func(r io.Reader, sum *[32]byte) {
		hash := sha256.New()
		if _, err := io.CopyN(hash, r, total); err != nil {
			t.Error(err)
		}
		hash.Sum(sum[:0])
	}
	var sent, got [2][32]byte
	wg.Go(func() { send(p, 1, &sent[0]) })
	wg.Go(func() { send(node, 2, &sent[1]) })
	wg.Go(func() { receive(node, &got[0]) })
	wg.Go(func() { receive(p, &got[1]) })
	soonDone(t, "all bytes", wg.Wait)
	if sent != got {
		t.Error("something else came out than went in")
	}
}

func TestPortHasADeadlineForReading(t *testing.T) {
	p, node := portPair(t)
	b := make([]byte, 10)
	for _, in := range []time.Duration{20 * time.Millisecond, -time.Second} {
		if err := p.SetReadDeadline(time.Now().Add(in)); err != nil {
			t.Fatal(err)
		}
		if n, err := p.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	for _, due := range []time.Time{time.Now().Add(time.Minute), {}} {
		if err := p.SetReadDeadline(due); err != nil {
			t.Fatal(err)
		}
		if _, err := node.Write([]byte("hi")); err != nil {
			t.Fatal(err)
		}
		if n, err := p.Read(b); err != nil || string(b[:n]) != "hi" {
			t.Errorf("%q, %v", b[:n], err)
		}
	}
}

// TestPortEndsWithTheNode: what was sent is read before the end, and writing fails
// in a way that links take for the end.
func TestPortEndsWithTheNode(t *testing.T) {
	p, node := portPair(t)
	if !p.connected() {
		t.Error("not connected")
	}
	if _, err := node.Write([]byte("last words")); err != nil {
		t.Fatal(err)
	}
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	if p.connected() {
		t.Error("still connected")
	}
	if got, err := io.ReadAll(p); err != nil || string(got) != "last words" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := p.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("wrote to nobody: %v", err)
	}
	if n := p.WriteNow([]byte("x")); n != 0 {
		t.Errorf("wrote %d bytes to nobody", n)
	}
}

// TestPortCloseWakes who reads and who writes, and all later ones fail.
func TestPortCloseWakes(t *testing.T) {
	p, _ := portPair(t)
	full := make([]byte, 1<<20)
	for p.WriteNow(full) > 0 {
	}
	begun, ended := make(chan struct{}, 2), make(chan error, 2)
	go func() { begun <- struct{}{}; _, err := p.Read(make([]byte, 1)); ended <- err }()
	go func() { begun <- struct{}{}; _, err := p.Write(full); ended <- err }()
	<-begun
	<-begun
	soonDone(t, "the port to close", func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		soonDone(t, "reader and writer", func() {
			if err := <-ended; !errors.Is(err, net.ErrClosed) {
				t.Errorf("ended with %v", err)
			}
		})
	}
	if err := p.Close(); err != nil {
		t.Error("closed again: ", err)
	}
	if _, err := p.Read(full); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after it was closed: %v", err)
	}
	if n := p.WriteNow(full); n != 0 {
		t.Errorf("wrote %d bytes after it was closed", n)
	}
}

// TestOpenPort finds the port of the right name among others, with a terminal in the
// place of its device.
func TestOpenPort(t *testing.T) {
	host, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
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
