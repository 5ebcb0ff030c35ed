//go:build unix

package forward_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"nex/internal/vmnet/forward"
)

func TestCalled(t *testing.T) {
	if address, ok := forward.Called([]string{"nex", forward.Command, "127.0.0.1:1"}); !ok || address != "127.0.0.1:1" {
		t.Errorf("got %q, %v", address, ok)
	}
	for _, args := range [][]string{{"nex"}, {"nex", forward.Command}, {"nex", "node", "up"}, {"nex", forward.Command, "a", "b"}} {
		if _, ok := forward.Called(args); ok {
			t.Errorf("%q asks for no forwarding", args)
		}
	}
}

// TestRun sends more than buffers hold each way, with either kind of streams that
// a program may have, and ends one direction before the other.
func TestRun(t *testing.T) {
	for _, test := range []struct {
		name    string
		streams func(*testing.T) (in, out *os.File, near io.ReadWriter, end func() error)
	}{{"socket", socket}, {"pipes", pipes}} {
		t.Run(test.name, func(t *testing.T) {
			sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() { // answers when all has come
				conn, err := l.Accept()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(20 * time.Second))
				got, err := io.ReadAll(conn)
				if err != nil || !bytes.Equal(got, sent) {
					t.Errorf("the server got %d bytes, %v", len(got), err)
				}
				conn.Write(got)
			})
			in, out, near, end := test.streams(t)
			done := make(chan error, 1)
			go func() { done <- forward.Run(in, out, l.Addr().String()) }()
			if _, err := near.Write(sent); err != nil {
				t.Error(err)
			}
			if err := end(); err != nil {
				t.Error(err)
			}
			if got, err := io.ReadAll(near); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("came back: %d bytes, %v", len(got), err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRunRefused tells of a server that is not there, and ends the near side.
func TestRunRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	in, out, near, _ := socket(t)
	if err := forward.Run(in, out, l.Addr().String()); err == nil {
		t.Error("no error")
	}
	if _, err := near.Read(make([]byte, 1)); err == nil {
		t.Error("the near side does not hear of the end")
	}
}

// socket returns one socket for both streams, as QEMU gives its commands.
func socket(t *testing.T) (in, out *os.File, near io.ReadWriter, end func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	if in, err = far.(*net.TCPConn).File(); err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Dup(int(in.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return in, os.NewFile(uintptr(fd), "out"), conn, conn.(*net.TCPConn).CloseWrite
}

// pipes returns a pipe for each stream.
func pipes(t *testing.T) (in, out *os.File, near io.ReadWriter, end func() error) {
	t.Helper()
	in, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	near = struct {
		io.Reader
		io.Writer
	}{r, w}
	return in, out, near, w.Close
}

// TestRunEndsWithWhoeverStartedIt: a server that keeps its connection does not keep the
// process, once what was sent has come to it.
func TestRunEndsWithWhoeverStartedIt(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	in, near := os.NewFile(uintptr(pair[0]), "in"), os.NewFile(uintptr(pair[1]), "near")
	done := make(chan error, 1)
	go func() { done <- forward.Run(in, in, l.Addr().String()) }()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := near.WriteString("last words"); err != nil {
		t.Fatal(err)
	}
	if err := near.Close(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 10)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "last words" {
		t.Errorf("%q came, %v", got, err)
	}
	select {
	case <-done: // with the error of a connection that was closed
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
}
