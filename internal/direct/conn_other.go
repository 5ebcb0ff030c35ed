//go:build !unix

package direct

import "net"

// Wrap returns conn: there are no direct streams here.
func Wrap(conn net.Conn) net.Conn { return conn }
