package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"nex/internal/direct"
)

// inDir names a file in an open directory in few bytes: a socket's path may have 107.
func inDir(dir *os.File, name string) string {
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name)
}

// port is the host's side of one port of a guest's vsock.
type port struct {
	listener *net.UnixListener
	path     string
}

// openPort listens for a connection of the guest, in dir. The socket belongs to
// the given user, which is Firecracker's: it may write there, which is what
// connecting takes, and so may nobody else but root.
func openPort(dir, name string, uid, gid int) (*port, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: inDir(d, name), Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by a name that is nobody's then
	p := &port{l, filepath.Join(dir, name)}
	if err := errors.Join(os.Chmod(p.path, 0o600), os.Chown(p.path, uid, gid)); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// close ends the listening; the file goes with the directory, or before.
func (p *port) close() {
	_ = p.listener.Close() // accept has closed it, or nobody waits
	_ = os.Remove(p.path)  // likewise
}

// accept returns the first connection, and takes no other. It ends with ctx and
// when gone is closed.
func (p *port) accept(ctx context.Context, gone <-chan struct{}) (net.Conn, error) {
	done := make(chan struct{})
	watched := make(chan struct{})
	var why error
	go func() {
		defer close(watched)
		select {
		case <-done:
		case <-gone:
			why = errEnded
			p.close()
		case <-ctx.Done():
			why = ctx.Err()
			p.close()
		}
	}()
	conn, err := p.listener.AcceptUnix()
	close(done)
	<-watched
	p.close()
	switch {
	case err == nil && why == nil:
		return direct.Wrap(conn), nil
	case err == nil:
		return nil, errors.Join(why, conn.Close())
	case why != nil:
		return nil, why
	case errors.Is(err, net.ErrClosed):
		return nil, errEnded // what ends the machine closed it
	}
	return nil, err
}
