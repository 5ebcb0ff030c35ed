package node

import (
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// serverStart bounds the start of a NATS server in this process.
	serverStart = 10 * time.Second
	// serverCheck is how often a starting server is asked for what failed.
	serverCheck = 50 * time.Millisecond
)

// StartServer starts a NATS server in this process and returns when it takes
// connections; the caller shuts it down. What the server has to say goes to
// log. The options are not changed.
func StartServer(options *server.Options, log *slog.Logger) (*server.Server, error) {
	options = options.Clone()
	options.NoSigs, options.DisableJetStreamBanner = true, true
	srv, err := server.NewServer(options)
	if err != nil {
		return nil, fmt.Errorf("set up NATS server: %w", err)
	}
	failed := make(chan error, 1)
	srv.SetLogger(serverLog{log: log, failed: failed}, false, false)
	srv.Start()
	if err := awaitServer(srv, failed); err != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, fmt.Errorf("start NATS server: %w", err)
	}
	return srv, nil
}

func awaitServer(srv *server.Server, failed <-chan error) error {
	ready := false
	for until := time.Now().Add(serverStart); !ready && time.Now().Before(until); {
		ready = srv.ReadyForConnections(serverCheck)
		select {
		case err := <-failed:
			return err
		default:
		}
	}
	if !ready {
		return fmt.Errorf("it was not ready within %s", serverStart)
	}
	return nil
}

// startPublicServer starts the server of the configuration, if there is one,
// and makes it the node's own when cfg names no other. The streams are kept in
// dir unless the configuration says where.
func startPublicServer(cfg *Config, dir string) (stop func(), err error) {
	if cfg.Settings.PublicServer == nil {
		return func() {}, nil
	}
	options := cfg.Settings.PublicServer.Options
	if options.StoreDir == "" {
		options.StoreDir = dir
	}
	srv, err := StartServer(&options, cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("public_nats_server: %w", err)
	}
	cfg.Log.Info("Public NATS server is listening", "url", srv.ClientURL(), "jetstream", srv.JetStreamEnabled())
	if a, ok := srv.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
		cfg.Log.Warn("The public NATS server takes everybody who reaches it", "address", a.String())
	}
	if cfg.Server == "" {
		cfg.Server = srv.ClientURL()
	}
	return func() { srv.Shutdown(); srv.WaitForShutdown() }, nil
}

// serverLog passes what a NATS server says to a logger. The server takes its
// clients' mistakes for errors and its own life for news; to the node they are
// warnings and details.
type serverLog struct {
	log    *slog.Logger
	failed chan<- error // takes the first reason why the server cannot run
}

func (l serverLog) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	select {
	case l.failed <- err:
	default:
		l.log.Error("NATS server failed", "error", err)
	}
}

func (l serverLog) Errorf(format string, args ...any)  { l.warn(format, args) }
func (l serverLog) Warnf(format string, args ...any)   { l.warn(format, args) }
func (l serverLog) Noticef(format string, args ...any) { l.detail(format, args) }
func (l serverLog) Debugf(format string, args ...any)  { l.detail(format, args) }
func (l serverLog) Tracef(string, ...any)              {}

func (l serverLog) warn(format string, args []any) {
	l.log.Warn("NATS server: " + fmt.Sprintf(format, args...))
}

func (l serverLog) detail(format string, args []any) {
	l.log.Debug("NATS server: " + fmt.Sprintf(format, args...))
}
