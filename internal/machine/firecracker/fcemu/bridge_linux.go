package fcemu

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

// bridge is the guest's one connection to the host: between QEMU's port and the
// socket that Firecracker's vsock would connect to.
type bridge struct {
	guest  net.Conn // QEMU's end of the port; it stays open while the machine runs
	socket string

	mu   sync.Mutex
	host net.Conn // nil while there is none
	once bool     // the guest had one: QEMU's port cannot tell it of another
}

// connect connects the guest to the host.
func (b *bridge) connect() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.once {
		return
	}
	b.once = true
	host, err := net.Dial("unix", b.socket)
	if err != nil {
		fmt.Fprintln(os.Stderr, "vsock:", err)
		_ = b.guest.Close() // the guest sees that nobody is there
		return
	}
	b.host = host
	go func() {
		_, _ = io.Copy(host, b.guest) // until either ends
		_ = host.Close()
	}()
	go func() {
		_, _ = io.Copy(b.guest, host)
		_ = b.guest.Close() // which the guest takes for the end of the connection
	}()
}

// hangUp ends the connection, since the guest did.
func (b *bridge) hangUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.host != nil {
		_ = b.host.Close()
		b.host = nil
	}
}
