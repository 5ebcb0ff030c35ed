package hostsvc

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"nex/internal/direct"
)

// dialTimeout bounds an attempt to reach one server.
const dialTimeout = 2 * time.Second

// dialer makes the connections of a client of NATS. Until the first is
// complete it gives up with the context, after which a client would go on to try
// all the servers it knows.
type dialer struct {
	opening  context.Context
	complete atomic.Bool
}

// Dial implements [nats.CustomDialer].
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	ctx := context.Background()
	if !d.complete.Load() {
		ctx = d.opening
	}
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return direct.Wrap(conn), nil
}
