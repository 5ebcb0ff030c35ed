package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"nex"
)

// deployer brings files from this machine onto a node.
type deployer struct {
	*cli
	client         *nex.Client
	nc             *nats.Conn
	keys           nex.Keys
	replace        bool // stop workloads of the same name
	bucketMaxBytes int64
}

// running is a workload of some name and where it runs.
type running struct {
	id   string
	node nex.NodeInfo
}

// deploy uploads f and runs as many copies as flags say on nodes that take them.
// Functions overlap with the copies they replace, so that no message goes
// unanswered; services are stopped first, since two might want the same port.
// So are functions where there is no room for both.
func (d *deployer) deploy(ctx context.Context, f source, flags deployFlags) ([]placement, error) {
	verdicts, old, err := d.ask(ctx, f, flags)
	if err != nil {
		return nil, err
	}
	if len(old) > 0 && !d.replace {
		return nil, fmt.Errorf("workload '%s' already runs as %s on node %s: stop it, drop --no-stop, or choose another --name", f.name, old[0].id, old[0].node.NodeID)
	}
	nodes, overlap, err := choose(verdicts, old, flags.count, f)
	if err != nil {
		return nil, err
	}
	location, err := d.upload(ctx, f)
	if err != nil {
		return nil, err
	}
	if !overlap {
		if _, err := d.stopAll(ctx, f.name, old); err != nil {
			return nil, err
		}
	}
	w := flags.workload(f.name, f.typ)
	w.Location, w.SHA256, w.Description, w.JSDomain, w.SourceName = location, f.sha256, devDescription, d.conn.jsDomain, filepath.Base(f.path)
	placed, err := d.spread(ctx, nodes, w, flags.count)
	switch {
	case err != nil && !overlap && len(old) > 0:
		return nil, fmt.Errorf("%w (the former copies of '%s' were stopped before)", err, f.name)
	case err != nil || !overlap:
		return placed, err
	}
	if stopped, err := d.stopAll(ctx, f.name, old); err != nil {
		if stopped == 0 && nex.CodeOf(err) != nex.Timeout {
			return nil, errors.Join(err, d.undo(ctx, placed)) // the old ones go on alone
		}
		return nil, fmt.Errorf("the new '%s' runs, but a former copy may too: %w", f.name, err)
	}
	return placed, nil
}

// ask asks who would run f and who runs something of its name.
func (d *deployer) ask(ctx context.Context, f source, flags deployFlags) (verdicts []verdict, old []running, err error) {
	request, err := flags.auction(f, d.keys)
	if err != nil {
		return nil, nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) { verdicts, err = d.bidders(ctx, d.client, request, flags.node); return err })
	g.Go(func() (err error) { old, err = d.find(ctx, f.name); return err })
	return verdicts, old, g.Wait()
}

// choose picks the nodes to deploy to, and says whether new copies fit beside
// old ones. If not, the places of those count as free.
func choose(verdicts []verdict, old []running, copies int, f source) (nodes []nex.NodeInfo, overlap bool, err error) {
	takers := slices.DeleteFunc(slices.Clone(verdicts), func(v verdict) bool { return !v.takes() })
	if free := room(takers); free >= copies {
		return places(takers), f.typ.IsFunction(), nil
	}
	free := room(takers)
	for _, v := range verdicts {
		n := len(slices.DeleteFunc(slices.Clone(old), func(w running) bool { return w.node.NodeID != v.NodeID }))
		if n > 0 && v.lacksRoom() {
			takers = append(takers, v)
		}
		if n > 0 && (v.takes() || v.lacksRoom()) {
			free += n
		}
	}
	if free >= copies {
		return places(takers), false, nil
	}
	why := summarize(verdicts)
	if free > 0 {
		why = fmt.Sprintf("there is room for %d of %d copies on %s", free, copies, why)
	}
	if f.dynamic {
		why += fmt.Sprintf(" (%s needs files of its host: only nodes without a sandbox take that; link it statically, as with CGO_ENABLED=0 go build)", f.path)
	}
	return nil, false, refusedError{fmt.Errorf("unable to locate candidate node - %s", why)}
}

// find lists the workloads of a name in the namespace, on all nodes. It asks
// each node by itself: those that have none answer too, so nobody is waited
// for in vain.
func (d *deployer) find(ctx context.Context, name string) ([]running, error) {
	ctx, cancel := d.within(ctx, 0)
	defer cancel()
	var found []running
	for n, err := range d.client.Nodes(ctx, nex.NodeFilter{}) {
		if err != nil {
			return nil, err
		}
		info, err := d.client.Info(ctx, n.NodeID)
		if nex.CodeOf(err) == nex.NoSuchNode {
			continue // it has just left
		}
		if err != nil {
			return nil, fmt.Errorf("look for workload '%s' on node %s: %w", name, n.NodeID, answered(err))
		}
		for _, m := range info.Machines {
			if m.Workload.Name == name {
				found = append(found, running{m.ID, n})
			}
		}
	}
	return found, nil
}

// stopAll stops workloads that are replaced, and says how many it did.
func (d *deployer) stopAll(ctx context.Context, name string, old []running) (stopped int, err error) {
	for _, w := range old {
		if !d.json {
			fmt.Fprintf(d.stdout, "Workload %s (%s) already exists on the target. Attempting to stop it\n", name, escape(w.id))
		}
		if err := d.stop(ctx, name, w); err != nil {
			return stopped, err
		}
		stopped++
	}
	return stopped, nil
}

// stop ends one workload. One that is gone already is fine.
func (d *deployer) stop(ctx context.Context, name string, w running) error {
	ctx, cancel := d.within(ctx, stopWait)
	defer cancel()
	_, err := signAndStop(ctx, d.client, d.keys, name, w)
	switch nex.CodeOf(err) {
	case "", nex.NotFound:
		return nil
	case nex.Unauthorized:
		return fmt.Errorf("workload '%s' (%s) on node %s cannot be replaced: %w; choose another --name", name, w.id, w.node.NodeID, answered(err))
	}
	return fmt.Errorf("stop workload '%s' (%s) on node %s: %w", name, w.id, w.node.NodeID, answered(err))
}

// target addresses requests to a node.
func (d *deployer) target(n nex.NodeInfo) nex.Target {
	return nex.Target{Namespace: d.client.Namespace(), Node: n.NodeID, Xkey: n.TargetXkey}
}

// spread deploys copies of a workload, one node after the other in turn. A
// node that refuses after all is passed over. All copies run in the end, or
// none.
func (d *deployer) spread(ctx context.Context, nodes []nex.NodeInfo, w nex.Workload, copies int) (placed []placement, err error) {
	for len(placed) < copies {
		if len(nodes) == 0 {
			return nil, errors.Join(err, d.undo(ctx, placed))
		}
		node := nodes[0]
		p, refused := d.place(ctx, node, w)
		switch code := nex.CodeOf(refused); {
		case refused == nil:
			placed = append(placed, p)
			nodes = append(nodes[1:], node)
		case code == nex.Timeout || ctx.Err() != nil:
			refused = fmt.Errorf("%w; whether it runs there is not known: nex node probe --workload %s tells", refused, w.Name)
			return nil, errors.Join(refused, d.undo(ctx, placed))
		case code == nex.Invalid: // wherever it is asked for
			return nil, errors.Join(refused, d.undo(ctx, placed))
		default:
			err, nodes = refused, nodes[1:]
		}
	}
	return placed, nil
}

// undo stops copies of a deploy that failed, even one that was interrupted.
func (d *deployer) undo(ctx context.Context, placed []placement) error {
	var errs []error
	for _, p := range placed {
		errs = append(errs, d.stop(context.WithoutCancel(ctx), p.Name, running{p.ID, nex.NodeInfo{NodeID: p.Node}}))
	}
	return errors.Join(errs...)
}

// place deploys a workload on one node.
func (d *deployer) place(ctx context.Context, node nex.NodeInfo, w nex.Workload) (placement, error) {
	req, err := d.keys.Deploy(w, d.target(node))
	if err != nil {
		return placement{}, err
	}
	ctx, cancel := d.within(ctx, deployWait)
	defer cancel()
	defer d.notice("Waiting for the node to fetch and start the workload…")()
	reply, err := d.client.Deploy(ctx, node.NodeID, req)
	if err != nil {
		return placement{}, fmt.Errorf("⛔ Workload run request failed to submit: %w", answered(err))
	}
	if !reply.Started {
		return placement{}, refusedError{errors.New("⛔ Workload rejected")}
	}
	return placement{DeployReply: reply, Node: node.NodeID}, nil
}
