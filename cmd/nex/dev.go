package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/choria-io/fisk"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"nex"
	"nex/internal/config"
	"nex/internal/node"
)

const (
	// defaultPort is where nats-server listens and clients look.
	defaultPort = 4222
	// portsTried is how many ports from there on are tried.
	portsTried = 100
)

// dev runs NATS and a node in this process, for development.
type dev struct {
	*cli
	port     int
	portSet  bool
	stateDir string
	args     []string
	deployFlags
}

func (c *cli) addDev(ctx context.Context, app *fisk.Application) {
	d := &dev{cli: c}
	cmd := app.Command("dev", "Run NATS and a node on this machine, for development").Action(action(ctx, d.run))
	cmd.Arg("file", "Files to deploy, and to deploy again when they change, then KEY=VALUE of their environment").StringsVar(&d.args)
	d.deployFlags.add(cmd)
	cmd.Flag("port", "Port of the NATS server (the next free one if this is taken and not asked for)").Default(strconv.Itoa(defaultPort)).IsSetByUser(&d.portSet).IntVar(&d.port)
	cmd.Flag("state-dir", "Where to keep streams and the node's identity (if not given nothing is kept)").PlaceHolder("DIR").StringVar(&d.stateDir)
}

func (d *dev) run(ctx context.Context) (err error) {
	tune()
	files, err := d.files()
	if err != nil {
		return err
	}
	if d.conn.context != "" {
		return errors.New("nex dev runs a NATS server of its own and takes no --context: use nex node up to join another")
	}
	log, err := openLog(d.log, d.stdout, d.stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if d.stateDir == "" {
		dir, remove, err := d.tempDir()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, remove()) }()
		d.stateDir = dir
	}
	srv, err := d.startServer(log.Logger)
	if err != nil {
		return err
	}
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()

	settings := config.Default()
	settings.Sandbox = nex.SandboxNone
	g, ctx := errgroup.WithContext(ctx)
	ready := make(chan nex.NodeInfo, 1)
	g.Go(func() error {
		return node.Run(ctx, node.Config{
			Settings: settings, Nexus: "dev", Version: version, StateDir: filepath.Join(d.stateDir, "node"),
			Server: srv.ClientURL(), Log: log.Logger, SystemLog: log.published, Ready: func(n nex.NodeInfo) { ready <- n },
		})
	})
	g.Go(func() error { return d.whenReady(ctx, ready, srv, files, log.Logger) })
	return g.Wait()
}

// whenReady says what to type next, then deploys and watches files.
func (d *dev) whenReady(ctx context.Context, ready <-chan nex.NodeInfo, srv *server.Server, files []string, log *slog.Logger) error {
	select {
	case <-ready:
	case <-ctx.Done():
		return nil
	}
	nc, err := nats.Connect(srv.ClientURL(), nats.Name("nex dev"))
	if err != nil {
		return fmt.Errorf("connect to the embedded NATS server: %w", err)
	}
	defer nc.Close()
	client, err := nex.NewClient(nc, d.namespace)
	if err != nil {
		return err
	}
	d.welcome(srv)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.showLogs(ctx, client, log) })
	if len(files) > 0 {
		g.Go(func() error { return d.watch(ctx, client, nc, files, log) })
	}
	return g.Wait()
}

// showLogs prints what workloads print, but not a line per call.
func (d *dev) showLogs(ctx context.Context, client *nex.Client, log *slog.Logger) error {
	for r, err := range client.Logs(ctx, nex.LogSubject{}) {
		if err != nil {
			log.Warn("Log record lost", "error", err)
			continue
		}
		printLog(ctx, log, r, "workload", r.Workload)
	}
	return nil
}

// welcome says where NATS is and what to type next.
func (d *dev) welcome(srv *server.Server) {
	url, flag := srv.ClientURL(), ""
	if url != defaultServer || os.Getenv("NATS_URL") != "" {
		flag = " -s " + url
	}
	fmt.Fprintf(d.stdout, `
NATS with JetStream is at %[1]s, and a node without a sandbox is ready.
In another terminal:

  nex devrun ./echo.js --trigger_subject=js.echo%[2]s    deploy a function
  nats req js.echo heya%[2]s                             call it
  nex node ls%[2]s                                       see the node
  nex logs%[2]s                                          see what workloads print

Ctrl-C stops everything.

`, url, flag)
}

// startServer starts NATS on the wanted port, or the next free one.
func (d *dev) startServer(log *slog.Logger) (*server.Server, error) {
	last := d.port
	if !d.portSet {
		last += portsTried
	}
	var err error
	for port := d.port; port <= last; port++ {
		if err = portFree(port); err != nil {
			continue
		}
		return d.startServerOn(port, log)
	}
	return nil, fmt.Errorf("no free port from %d to %d: %w; choose another with --port", d.port, last, err)
}

func portFree(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return l.Close()
}

func (d *dev) startServerOn(port int, log *slog.Logger) (*server.Server, error) {
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return node.StartServer(&server.Options{
		ServerName: "nex-dev", Host: "127.0.0.1", Port: port,
		JetStream: true, StoreDir: filepath.Join(d.stateDir, "nats"),
	}, log)
}

// files separates files from KEY=VALUE arguments and checks that they can be
// deployed together.
func (d *dev) files() ([]string, error) {
	var files []string
	for _, a := range d.args {
		key, value, isEnv := strings.Cut(a, "=")
		if _, err := os.Stat(a); isEnv && key != "" && err != nil {
			d.env[key] = value
			continue
		}
		files = append(files, a)
	}
	names, functions := map[string]string{}, 0
	for _, path := range files {
		f, err := readSource(path, "", "")
		if err != nil {
			return nil, err
		}
		if other, taken := names[f.name]; taken {
			return nil, fmt.Errorf("%s and %s would both be workload '%s': rename one", other, path, f.name)
		}
		names[f.name] = path
		if f.typ.IsFunction() {
			functions++
		}
	}
	if len(d.triggers) > 0 && functions != 1 {
		return nil, fmt.Errorf("--trigger_subject needs exactly one function among the files; there are %d", functions)
	}
	for _, t := range d.triggers {
		if err := nex.ValidTrigger(t); err != nil {
			return nil, err
		}
	}
	return files, nil
}
