package workload

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/direct"
)

// connectTimeout bounds each attempt to connect for a workload.
const connectTimeout = 2 * time.Second

// connect returns where the workload's triggers are: the node's connection, or
// one of its own if the request asks for that. Such a connection is made when
// the workload first starts and lasts as long as it does.
func (t *triggers) connect() (*nats.Conn, error) {
	a := t.w.spec.TriggerAccess
	if a == nil {
		return t.w.m.cfg.Conn, nil
	}
	if t.own != nil {
		return t.own, nil
	}
	options := []nats.Option{nats.Name("workload-trigger-subscription"), nats.Timeout(connectTimeout), nats.MaxReconnects(-1),
		nats.SetCustomDialer(direct.Dialer{Timeout: connectTimeout}),
	}
	if a.JWT != "" {
		options = append(options, nats.UserJWTAndSeed(a.JWT, string(a.Seed)))
	}
	nc, err := nats.Connect(a.URL, options...)
	if err != nil {
		return nil, nex.Errorf(nex.Unavailable, "connect to the workload's trigger_connection: %v", err)
	}
	t.own = nc
	return nc, nil
}

// conn is what connect returned.
func (t *triggers) conn() *nats.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.own != nil {
		return t.own
	}
	return t.w.m.cfg.Conn
}

// disconnect sends what waits to be sent and ends the workload's own
// connection.
func (t *triggers) disconnect() error {
	t.mu.Lock()
	own := t.own
	t.mu.Unlock()
	if own == nil {
		return nil
	}
	defer own.Close()
	if !own.IsConnected() {
		return nil
	}
	if err := own.FlushTimeout(connectTimeout); err != nil {
		return fmt.Errorf("send the last replies: %w", err)
	}
	return nil
}
