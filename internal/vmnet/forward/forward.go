// Package forward carries one connection between a program's standard streams and an
// address of TCP. QEMU's user network runs it, as a mode of nex, for each connection
// of a guest to an address that the guest may reach.
package forward

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Command is the first argument of nex that asks for [Run], with the address as the
// second.
const Command = "guest-forward"

// connectTime bounds how long a connection may take to come about.
const connectTime = 30 * time.Second

// Called returns the address if a program's arguments ask for [Run].
func Called(args []string) (address string, ok bool) {
	if len(args) == 3 && args[1] == Command {
		return args[2], true
	}
	return "", false
}

// Run connects to address and carries bytes both ways until both sides have ended,
// one failed, or whoever has the other end of a socket is no more. in and out may be one socket; they are closed.
func Run(in, out *os.File, address string) error {
	defer in.Close()
	defer out.Close()
	far, err := net.DialTimeout("tcp", address, connectTime)
	if err != nil {
		return fmt.Errorf("forward to %s: %w", address, err)
	}
	defer far.Close()
	var from io.ReadCloser = in
	var to io.WriteCloser = out
	if near, err := net.FileConn(out); err == nil { // a socket: its two directions end one by one
		defer near.Close()
		from, to = near, half{near}
	}
	sent := make(chan struct{})
	stop := onHangup(out, func() { <-sent; far.Close() })
	defer stop()
	var up, down error
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(sent)
		if up = carry(half{far}, from); up != nil {
			far.Close()
		}
	})
	wg.Go(func() {
		if down = carry(to, far); down != nil {
			from.Close()
		}
	})
	wg.Wait()
	return errors.Join(up, down)
}

// carry copies until the end of from, and ends to.
func carry(to io.WriteCloser, from io.Reader) error {
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return to.Close()
}

// half is a connection whose Close ends what is sent, and not what is received.
type half struct{ net.Conn }

// Close ends what is sent.
func (h half) Close() error {
	if c, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return h.Conn.Close()
}
