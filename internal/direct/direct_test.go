//go:build unix

package direct_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"nex/internal/direct"
)

// twoFiles is the other end of pipes.
type twoFiles struct{ in, out *os.File }

func (f twoFiles) Read(p []byte) (int, error)  { return f.in.Read(p) }
func (f twoFiles) Write(p []byte) (int, error) { return f.out.Write(p) }
func (f twoFiles) Close() error                { return errors.Join(f.in.Close(), f.out.Close()) }

// patience is how long anything may take.
const patience = 20 * time.Second

// streams makes both ends of each kind of stream.
var streams = map[string]func(t *testing.T) (near net.Conn, far io.ReadWriteCloser){
	"pipes": func(t *testing.T) (near net.Conn, far io.ReadWriteCloser) {
		n, files, err := direct.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		return n, twoFiles{files[0], files[1]}
	},
	"unix": func(t *testing.T) (near net.Conn, far io.ReadWriteCloser) { return dialed(t, "unix", t.TempDir()+"/s") },
	"tcp":  func(t *testing.T) (near net.Conn, far io.ReadWriteCloser) { return dialed(t, "tcp", "127.0.0.1:0") },
}

// dialed connects one end with the Dialer.
func dialed(t *testing.T, network, address string) (near net.Conn, far io.ReadWriteCloser) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = (direct.Dialer{Timeout: patience}).Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if _, ok := near.(*direct.Conn); !ok {
		t.Errorf("dialled a %T", near)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return near, direct.Wrap(conn)
}

// eachStream runs a test for each kind.
func eachStream(t *testing.T, test func(t *testing.T, near net.Conn, far io.ReadWriteCloser)) {
	for name, make := range streams {
		t.Run(name, func(t *testing.T) {
			near, far := make(t)
			defer far.Close()  // most are closed by then
			defer near.Close() // likewise
			test(t, near, far)
		})
	}
}

// outcome waits for what a goroutine reports.
func outcome(t *testing.T, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(patience):
		t.Fatal("waited in vain")
		return nil
	}
}

// TestEverythingComes: both ways at once, with writes larger than what the kernel takes at a time.
func TestEverythingComes(t *testing.T) {
	eachStream(t, func(t *testing.T, near net.Conn, far io.ReadWriteCloser) {
		sent := make([]byte, 5<<20+3)
		_, _ = rand.Read(sent) // never fails
		done := make(chan error, 4)
		for _, ends := range [][2]io.ReadWriter{{near, far}, {far, near}} {
			go func() {
				rest := sent
				for size := 1; len(rest) > 0; size = size*3 + 1 {
					n, err := ends[0].Write(rest[:min(size, len(rest))])
					if err != nil {
						done <- err
						return
					}
					rest = rest[n:]
				}
				done <- nil
			}()
			go func() {
				got := make([]byte, len(sent))
				_, err := io.ReadFull(ends[1], got)
				if err == nil && !bytes.Equal(got, sent) {
					err = errors.New("other bytes came")
				}
				done <- err
			}()
		}
		for range 4 {
			if err := outcome(t, done); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestDeadlineEndsARead(t *testing.T) {
	eachStream(t, func(t *testing.T, near net.Conn, far io.ReadWriteCloser) {
		b := make([]byte, 10)
		for _, in := range []time.Duration{20 * time.Millisecond, -time.Second} {
			if err := near.SetReadDeadline(time.Now().Add(in)); err != nil {
				t.Fatal(err)
			}
			if n, err := near.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read %d bytes, %v", n, err)
			}
		}
		if err := near.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { _, err := near.Read(b); ended <- err }()
		if err := near.SetReadDeadline(time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := outcome(t, ended); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the deadline of a read that had begun: %v", err)
		}
		if err := near.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if _, err := far.Write([]byte("hi")); err != nil {
			t.Fatal(err)
		}
		if n, err := near.Read(b); err != nil || string(b[:n]) != "hi" {
			t.Errorf("%q, %v afterwards", b[:n], err)
		}
	})
}

// TestWriteNowDoesNotWait: it takes what there is room for, and the rest goes the
// other way.
func TestWriteNowDoesNotWait(t *testing.T) {
	eachStream(t, func(t *testing.T, near net.Conn, far io.ReadWriteCloser) {
		quick, ok := near.(interface{ WriteNow([]byte) int })
		if !ok {
			t.Fatalf("a %T cannot", near)
		}
		sent := make([]byte, 32<<20)
		_, _ = rand.Read(sent) // never fails
		n := 0
		for {
			more := quick.WriteNow(sent[n:])
			if n += more; more == 0 {
				break
			}
		}
		if n == 0 || n == len(sent) {
			t.Fatalf("%d bytes were taken while nobody read", n)
		}
		wrote := make(chan error, 1)
		go func() { _, err := near.Write(sent[n:]); wrote <- err }()
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("other bytes came, %v", err)
		}
		if err := outcome(t, wrote); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseEndsBothSides(t *testing.T) {
	eachStream(t, func(t *testing.T, near net.Conn, far io.ReadWriteCloser) {
		own, other := make(chan error, 1), make(chan error, 1)
		go func() { _, err := near.Read(make([]byte, 1)); own <- err }()
		go func() { _, err := far.Read(make([]byte, 1)); other <- err }()
		if err := near.Close(); err != nil {
			t.Fatal(err)
		}
		if err := outcome(t, own); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a read at the closed end: %v", err)
		}
		if err := outcome(t, other); !errors.Is(err, io.EOF) {
			t.Errorf("a read at the other end: %v", err)
		}
		if n, err := near.Write([]byte("x")); err == nil {
			t.Errorf("the closed end took %d bytes", n)
		}
		deadline := time.Now().Add(patience)
		for time.Now().Before(deadline) {
			_, err := far.Write(make([]byte, 1<<10))
			if errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
				return
			}
			if err != nil {
				t.Fatalf("a write to nobody: %v", err)
			}
		}
		t.Error("the other end goes on writing to nobody")
	})
}

// TestOthersStayAsTheyAre: a stream that is no socket of the system cannot be direct.
func TestOthersStayAsTheyAre(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	if got := direct.Wrap(near); got != near {
		t.Errorf("a %T became a %T", near, got)
	}
	if _, err := (direct.Dialer{Timeout: patience}).Dial("unix", t.TempDir()+"/nobody"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("dialled nobody: %v", err)
	}
}

// BenchmarkRoundTrip is a byte to another stream's reader and back.
func BenchmarkRoundTrip(b *testing.B) {
	near, files, err := direct.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	far := twoFiles{files[0], files[1]}
	defer near.Close()
	go func() {
		_, _ = io.Copy(far, far) // ends with near
		_ = far.Close()
	}()
	p := make([]byte, 64)
	for b.Loop() {
		if _, err := near.Write(p); err != nil {
			b.Fatal(err)
		}
		if _, err := near.Read(p); err != nil {
			b.Fatal(err)
		}
	}
}
