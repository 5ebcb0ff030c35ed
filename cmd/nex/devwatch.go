package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/nats-io/nats.go"

	"nex"
)

// settle is how long a file must be left alone before it is deployed again:
// editors and compilers write in several steps.
const settle = 150 * time.Millisecond

// watch deploys files, and each again when it changes, until ctx ends. A
// deploy that fails is told and leaves what ran before.
func (d *dev) watch(ctx context.Context, client *nex.Client, nc *nats.Conn, files []string, log *slog.Logger) error {
	keys, err := d.devKeys()
	if err != nil {
		return err
	}
	dep := &deployer{cli: d.cli, client: client, nc: nc, keys: keys, replace: true, bucketMaxBytes: defaultBucketBytes}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	defer w.Close()
	byPath := map[string]string{} // absolute path to the name given
	for _, path := range files {
		abs, err := filepath.Abs(path)
		if err == nil {
			err = w.Add(filepath.Dir(abs)) // files are replaced, directories stay
		}
		if err != nil {
			return fmt.Errorf("watch %s: %w", path, err)
		}
		byPath[abs] = path
		d.redeploy(ctx, dep, path, log)
	}
	changed := map[string]bool{}
	timer := time.NewTimer(settle)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-w.Events:
			if path, ours := byPath[e.Name]; ours && !e.Has(fsnotify.Chmod) {
				changed[path] = true
				timer.Reset(settle)
			}
		case err := <-w.Errors:
			log.Warn("Watching files", "error", err)
		case <-timer.C:
			for path := range changed {
				d.redeploy(ctx, dep, path, log)
			}
			clear(changed)
		}
	}
}

// redeploy deploys one file and says how to reach it.
func (d *dev) redeploy(ctx context.Context, dep *deployer, path string, log *slog.Logger) {
	f, err := readSource(path, "", "")
	if err != nil {
		log.Error("Not deployed", "file", path, "error", err)
		return
	}
	flags := d.deployFlags
	flags.count = 1
	flags.env = maps.Clone(d.env)
	if f.typ.IsFunction() && len(flags.triggers) == 0 {
		flags.triggers = []string{defaultTrigger(f)}
	}
	if !f.typ.IsFunction() {
		flags.triggers = nil
		if flags.env["NATS_URL"] == "" {
			flags.env["NATS_URL"] = dep.nc.ConnectedUrl()
		}
	}
	placed, err := dep.deploy(ctx, f, flags)
	if err != nil {
		if ctx.Err() == nil {
			log.Error("Not deployed", "file", path, "error", err)
		}
		return
	}
	on := ""
	if f.typ.IsFunction() {
		on = ", triggered by " + strings.Join(flags.triggers, ", ")
	}
	fmt.Fprintf(d.stdout, "🚀 Workload '%s' (%s) runs%s\n", placed[0].Name, placed[0].ID, on)
}

// defaultTrigger is js.echo for echo.js and wasm.echo for echo.wasm.
func defaultTrigger(f source) string {
	base := filepath.Base(f.path)
	base = strings.TrimSuffix(base, filepath.Ext(base))
	kind := map[nex.WorkloadType]string{nex.V8: "js", nex.Wasm: "wasm"}[f.typ]
	return kind + "." + strings.ReplaceAll(base, " ", "_")
}
