package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/choria-io/fisk"

	"nex"
	"nex/internal/config"
	"nex/internal/node"
	"nex/internal/preflight"
	"nex/internal/sdnotify"
)

// up runs a node against an existing NATS system.
type up struct {
	*cli
	config, nexus, stateDir string
	ephemeral               bool
}

func (c *cli) addNodeUp(ctx context.Context, parent *fisk.CmdClause) {
	u := &up{cli: c}
	cmd := parent.Command("up", "Run a node until it is told to stop").Action(action(ctx, u.run))
	cmd.Flag("config", "Configuration of the node").PlaceHolder("FILE").Default("./config.json").StringVar(&u.config)
	cmd.Flag("nexus", "Name of the cluster the node belongs to").Default("nexus").StringVar(&u.nexus)
	cmd.Flag("state-dir", "Where the node keeps its identity and its files").PlaceHolder("DIR").StringVar(&u.stateDir)
	cmd.Flag("ephemeral", "Keep nothing: a new identity at every start").UnNegatableBoolVar(&u.ephemeral)
}

func (u *up) run(ctx context.Context) (err error) {
	settings, warnings, err := config.Load(u.config)
	if err != nil {
		return err
	}
	log, err := openLog(u.log, u.stdout, u.stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	log.Info("Loaded node configuration", "file", u.config)
	for _, w := range warnings {
		log.Warn("Configuration key "+w.String(), "file", u.config)
	}
	dir, release, err := u.state(settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := u.checkHost(ctx, settings, dir, log.Logger); err != nil {
		return err
	}
	url, options, err := u.conn.resolve()
	if err != nil {
		return err
	}
	if settings.PublicServer != nil && u.conn.server == "" && u.conn.context == "" {
		url = "" // the node's own
	}
	notify, err := sdnotify.FromEnvironment()
	if err != nil {
		return err
	}
	tune()
	return node.Run(ctx, node.Config{
		Settings: settings, Nexus: u.nexus, Version: version, StateDir: dir, Server: url, Options: options,
		Log: log.Logger, SystemLog: log.published, Notify: notify,
		Ready: func(n nex.NodeInfo) { log.Info("Node is ready", slog.String("name", n.Tags["node_name"])) },
	})
}

// checkHost looks for what the node does not start without.
func (u *up) checkHost(ctx context.Context, s config.Config, stateDir string, log *slog.Logger) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	doubtful, err := preflight.ForStart(ctx, &preflight.Host{Settings: s, StateDir: stateDir, Program: program, Version: version})
	for _, f := range doubtful {
		log.Warn(f.Name+": "+f.Detail, "fix", f.Fix)
	}
	if err != nil {
		return fmt.Errorf("%w\nThis host cannot run the node that %s describes: nex node preflight --config %s tells all that is missing, and installs what it may", err, u.config, u.config)
	}
	return nil
}

// state is the directory of the node's state; release removes one that is not
// to be kept.
func (u *up) state(s config.Config) (dir string, release func() error, err error) {
	keep := func() error { return nil }
	switch {
	case u.ephemeral:
		return u.tempDir()
	case u.stateDir != "":
		return u.stateDir, keep, nil
	case s.StateDir != "":
		return s.StateDir, keep, nil
	}
	dir, err = node.DefaultStateDir()
	return dir, keep, err
}
