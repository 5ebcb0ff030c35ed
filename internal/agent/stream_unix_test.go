//go:build unix

package agent

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nex/internal/direct"
)

// eachStream runs a test for a stream of pipes, and for one over a socket, with the
// node's end of each.
func eachStream(t *testing.T, test func(t *testing.T, p *stream, node net.Conn)) {
	for kind, pair := range map[string]func(t *testing.T) (*stream, net.Conn){"pipes": pipePair, "socket": socketPair} {
		t.Run(kind, func(t *testing.T) {
			p, node := pair(t)
			t.Cleanup(func() { _ = p.Close(); _ = node.Close() }) // most are closed by then
			test(t, p, node)
		})
	}
}

func pipePair(t *testing.T) (*stream, net.Conn) {
	node, far, err := direct.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var fds [2]int
	for i, f := range far {
		if fds[i], err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0); err != nil || f.Close() != nil {
			t.Fatal(err)
		}
	}
	p, err := newStream(fds[0], fds[1], "pipes")
	if err != nil {
		t.Fatal(err)
	}
	return p, node
}

func socketPair(t *testing.T) (*stream, net.Conn) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newStream(pair[0], pair[0], "socket")
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(pair[1]), "node")
	node, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
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

// TestStreamCarriesAllBothWays: pieces of all sizes, in both directions at once.
func TestStreamCarriesAllBothWays(t *testing.T) {
	eachStream(t, func(t *testing.T, p *stream, node net.Conn) {
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
	})
}

func TestStreamHasADeadlineForReading(t *testing.T) {
	eachStream(t, func(t *testing.T, p *stream, node net.Conn) {
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
	})
}

// TestStreamEndsWithTheNode: what was sent is read before the end, and writing fails
// in a way that links take for the end.
func TestStreamEndsWithTheNode(t *testing.T) {
	eachStream(t, func(t *testing.T, p *stream, node net.Conn) {
		if _, err := node.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		if err := node.Close(); err != nil {
			t.Fatal(err)
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
	})
}

// TestStreamCloseWakes who reads and who writes, and all later ones fail.
func TestStreamCloseWakes(t *testing.T) {
	eachStream(t, func(t *testing.T, p *stream, node net.Conn) {
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
	})
}
