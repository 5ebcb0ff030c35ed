// Package direct makes streams whose reads and writes do not tell Go's scheduler
// that they are system calls. They never wait inside of one, for that is what the
// poller is for, so nothing is gained by telling; but a process that was idle wakes a
// second thread for each that does, which watches over those that wait, and on
// a host with few processors that thread is in the way of what was just read.
package direct

import (
	"net"
	"time"
)

// Dialer connects as a [net.Dialer] does, to streams that are direct where that is
// known how. It is a nats.CustomDialer.
type Dialer struct{ Timeout time.Duration }

// Dial connects to an address.
func (d Dialer) Dial(network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{Timeout: d.Timeout}).Dial(network, address)
	if err != nil {
		return nil, err
	}
	return Wrap(conn), nil
}
