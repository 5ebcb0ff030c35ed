package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/choria-io/fisk"

	"nex"
)

// logsCmd shows what workloads print, as it comes.
type logsCmd struct {
	*cli
	node, name, id string
	level          string
}

func (c *cli) addLogs(ctx context.Context, app *fisk.Application) {
	l := &logsCmd{cli: c}
	cmd := app.Command("logs", "Show what workloads print, as it comes").Action(action(ctx, l.run))
	cmd.Flag("node", "Only from this node").PlaceHolder("ID").StringVar(&l.node)
	cmd.Flag("workload_name", "Only of workloads with this name").PlaceHolder("NAME").StringVar(&l.name)
	cmd.Flag("workload_id", "Only of this workload").PlaceHolder("ID").StringVar(&l.id)
	cmd.Flag("level", "Least level of records: debug, info, warn, error").Default("debug").EnumVar(&l.level, "debug", "info", "warn", "error")
}

func (l *logsCmd) run(ctx context.Context) error {
	client, nc, err := l.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	least, err := logLevel(l.level)
	if err != nil {
		return err
	}
	log, err := newLogger(logOptions{Level: "debug", TimeFormat: l.log.TimeFormat, JSON: l.log.JSON, Color: l.log.Color}, l.stdout, l.stdout)
	if err != nil {
		return err
	}
	l.announce("Starting log watcher, stop it with Ctrl-C")
	for r, err := range client.Logs(ctx, nex.LogSubject{Node: unlessAll(l.node), Workload: unlessAll(l.name), ID: unlessAll(l.id)}) {
		switch {
		case err != nil:
			fmt.Fprintln(l.stderr, err)
		case r.Level < least:
		case l.json:
			if err := json.NewEncoder(l.stdout).Encode(r); err != nil {
				return err
			}
		default:
			printLog(ctx, log, r, "namespace", r.Namespace, "node", r.Node, "workload", r.Workload, "id", r.ID)
		}
	}
	return nil
}

// unlessAll understands the "*" of Nex 0.2.7.
func unlessAll(s string) string { return strings.TrimPrefix(s, "*") }

// printLog prints one record of a workload, a line for each of its lines.
func printLog(ctx context.Context, log *slog.Logger, r nex.Log, args ...any) {
	if r.Error != "" {
		args = append(args, "error", r.Error)
	}
	for line := range strings.Lines(r.Text) {
		log.Log(ctx, r.Level, strings.TrimRight(line, "\r\n"), args...)
	}
}

// announce tells people, not scripts, that something runs from here on.
func (c *cli) announce(text string) {
	if isTerminal(c.stderr) {
		fmt.Fprintln(c.stderr, text)
	}
}

// eventsCmd shows what happens on nodes, as it does.
type eventsCmd struct {
	*cli
	eventType string
}

func (c *cli) addEvents(ctx context.Context, app *fisk.Application) {
	e := &eventsCmd{cli: c}
	cmd := app.Command("events", "Show what happens to nodes and workloads, as it does").Action(action(ctx, e.run))
	cmd.Flag("type", "Only events of this type, as in workload_deployed").Default("*").StringVar(&e.eventType)
}

func (e *eventsCmd) run(ctx context.Context) error {
	client, nc, err := e.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	log, err := newLogger(e.log, e.stdout, e.stdout)
	if err != nil {
		return err
	}
	e.announce("Starting event watcher for namespaces " + client.Namespace() + " and " + nex.SystemNamespace + ", stop it with Ctrl-C")
	for ev, err := range client.Events(ctx, "*", e.eventType) {
		switch {
		case err != nil:
			fmt.Fprintln(e.stderr, err)
		case ev.Namespace != client.Namespace() && ev.Namespace != nex.SystemNamespace:
		case e.json:
			if err := json.NewEncoder(e.stdout).Encode(ev.Event); err != nil {
				return err
			}
		default:
			printEvent(log, ev)
		}
	}
	return nil
}

// printEvent prints an event with the fields of its data.
func printEvent(log *slog.Logger, ev nex.Event) {
	args := []any{"namespace", ev.Namespace, "event_type", ev.Type(), "source", ev.Source()}
	var data map[string]any
	if json.Unmarshal(ev.Data(), &data) == nil {
		delete(data, "namespace") // it is said already
		for _, key := range slices.Sorted(maps.Keys(data)) {
			args = append(args, key, data[key])
		}
	}
	log.Info("Received", args...)
}
