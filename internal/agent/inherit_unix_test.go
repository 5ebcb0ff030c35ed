//go:build unix

package agent

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestInheritedSocketHasADeadline: a wait for what never comes ends, and the
// socket goes on afterwards.
func TestInheritedSocketHasADeadline(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := inherit(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	other := os.NewFile(uintptr(pair[1]), "other end")
	defer other.Close()
	b := make([]byte, 10)
	for _, in := range []time.Duration{20 * time.Millisecond, -time.Second} {
		if err := s.SetReadDeadline(time.Now().Add(in)); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	for _, due := range []time.Time{time.Now().Add(time.Minute), {}} {
		if err := s.SetReadDeadline(due); err != nil {
			t.Fatal(err)
		}
		if _, err := other.WriteString("hi"); err != nil {
			t.Fatal(err)
		}
		if n, err := s.Read(b); err != nil || string(b[:n]) != "hi" {
			t.Errorf("%q, %v", b[:n], err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Read(b); err == nil {
		t.Error("read from a closed socket")
	}
}
