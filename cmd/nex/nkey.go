package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// rereadNkey has a connection that [nats.NkeyOptionFromSeed] has given a key look
// before it connects again which key the file has by then: the library reads the
// seed for each signature, but the public key once. While the file has none, as
// when it is being replaced, the last one stays. The option goes behind that one, and
// before it others that set handlers.
func rereadNkey(file string) nats.Option {
	return func(o *nats.Options) error {
		var conn atomic.Pointer[nats.Conn]
		connected, failed, choose := o.ConnectedCB, o.ReconnectErrCB, o.ReconnectToServerCB
		o.ConnectedCB = func(nc *nats.Conn) {
			conn.Store(nc)
			if connected != nil {
				connected(nc)
			}
		}
		o.ReconnectErrCB = func(nc *nats.Conn, err error) { // also when there was no first connection
			conn.Store(nc)
			if failed != nil {
				failed(nc, err)
			}
		}
		// The library asks this before each attempt and holds the connection's
		// lock meanwhile, so that its options may be changed.
		o.ReconnectToServerCB = func(pool []nats.Server, info nats.ServerInfo) (*nats.Server, time.Duration) {
			if nc := conn.Load(); nc != nil {
				if public, err := publicNkey(file); err == nil {
					nc.Opts.Nkey = public
				}
			}
			if choose != nil {
				return choose(pool, info)
			}
			return nil, 0 // as without this handler
		}
		return nil
	}
}

// publicNkey returns the public key of the seed in a file.
func publicNkey(file string) (string, error) {
	seed, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read nkey: %w", err)
	}
	kp, err := nkeys.ParseDecoratedNKey(seed)
	if err != nil {
		return "", fmt.Errorf("read nkey: %w", err)
	}
	defer kp.Wipe()
	return kp.PublicKey()
}
