package node

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/time/rate"

	"nex"
	"nex/internal/direct"
	"nex/internal/hostsvc"
	"nex/internal/workload"
)

// hostConnectTimeout bounds an attempt to connect for host services.
const hostConnectTimeout = 2 * time.Second

// warnEvery is how often the log says that there is no connection: each call of
// a workload attempts to make one.
const warnEvery = 10 * time.Second

// flusherTimeout is how long a server may take to read what workloads send: it
// holds up all who share the connection.
const flusherTimeout = 10 * time.Second

// hosts opens the host services of workloads.
type hosts struct{ *hostsvc.Server }

// newHosts makes the host services of a node. They have connections of their
// own, made when they are first used, so that what workloads do there holds up
// nothing that the node says.
func newHosts(cfg Config, report *reporter) (hosts, error) {
	warnings := rate.Sometimes{First: 1, Interval: warnEvery}
	dial := func(context.Context) (*nats.Conn, error) {
		nc, err := dialHosts(cfg)
		if err != nil {
			warnings.Do(func() { warnUnreachable(cfg, err) })
		}
		return nc, err
	}
	refused := func(t hostsvc.Tenant, r hostsvc.Refusal) {
		report.Event(t.Namespace, t.ID, nex.HostCallRefused{
			Name: t.Workload, Service: r.Service, Method: r.Method, Code: r.Code, Reason: r.Reason, Count: r.Untold + 1,
		})
	}
	s, err := hostsvc.New(cfg.Settings.Host, dial, refused)
	if err != nil {
		return hosts{}, fmt.Errorf("set up host services: %w", err)
	}
	return hosts{s}, nil
}

// dialHosts connects to the NATS that workloads share: that of the
// configuration, or the node's own, as the node or as the user given for it.
func dialHosts(cfg Config) (*nats.Conn, error) {
	server, options := cfg.Server, cfg.Options
	if a := cfg.Settings.HostAccess; a != nil {
		if a.URL != "" {
			server, options = a.URL, nil
		}
		if a.JWT != "" {
			options = append(options[:len(options):len(options)], nats.UserJWTAndSeed(a.JWT, string(a.Seed)))
		}
	}
	options = append([]nats.Option{nats.SetCustomDialer(direct.Dialer{Timeout: hostConnectTimeout})}, options...)
	options = append(options,
		nats.Name("nex-hostservices"), nats.Timeout(hostConnectTimeout), nats.MaxReconnects(-1), nats.IgnoreAuthErrorAbort(),
		nats.FlusherTimeout(flusherTimeout),
		nats.ReconnectBufSize(-1), // what cannot be sent now is an error now
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			cfg.Log.Debug("NATS error of host services", "error", err) // whoever asked has it too
		}),
	)
	return nats.Connect(server, options...)
}

func warnUnreachable(cfg Config, err error) {
	server := cfg.Server
	if a := cfg.Settings.HostAccess; a != nil && a.URL != "" {
		server = a.URL
	}
	cfg.Log.Warn("Host services cannot connect to NATS", "server", RedactURLs(server), "error", err)
}

// open opens those of one workload. Its messages go where its triggers come from.
func (h hosts) open(id string, s workload.Spec) workload.Host {
	return h.Open(hostsvc.Tenant{Namespace: s.Namespace, Workload: s.Name, ID: id}, hostsvc.Access{NATS: s.HostAccess, Messaging: s.TriggerAccess})
}
