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

// deploy uploads f and runs as many copies as flags say on nodes that bid.
// Functions overlap with the copies they replace, so that no message goes
// unanswered; services are stopped first, since two might want the same port.
// So is a function on a node that has room for no other.
func (d *deployer) deploy(ctx context.Context, f source, flags deployFlags) ([]placement, error) {
	bids, old, err := d.choose(ctx, f, flags)
	overlap := f.typ.IsFunction()
	if errors.As(err, new(noBidError)) && d.replace && len(old) > 0 {
		bids, overlap, err = nodesOf(old), false, nil
	}
	if err != nil {
		return nil, err
	}
	if len(old) > 0 && !d.replace {
		return nil, fmt.Errorf("workload '%s' already runs as %s on node %s: stop it, drop --no-stop, or choose another --name", f.name, old[0].id, old[0].node.NodeID)
	}
	location, err := d.upload(ctx, f)
	if err != nil {
		return nil, err
	}
	if !overlap {
		if err := d.stopAll(ctx, f.name, old); err != nil {
			return nil, err
		}
	}
	w := flags.workload(f.name, f.typ)
	w.Location, w.SHA256, w.Description, w.JSDomain, w.SourceName = location, f.sha256, devDescription, d.conn.jsDomain, filepath.Base(f.path)
	placed, err := d.spread(ctx, bids, w, flags.count)
	if err != nil || !overlap {
		return placed, err
	}
	if err := d.stopAll(ctx, f.name, old); err != nil {
		return nil, errors.Join(err, d.undo(ctx, placed)) // the old ones go on alone
	}
	return placed, nil
}

// choose asks who would run f and who runs something of its name.
func (d *deployer) choose(ctx context.Context, f source, flags deployFlags) (bids []nex.NodeInfo, old []running, err error) {
	request, err := flags.auction(f, d.keys)
	if err != nil {
		return nil, nil, err
	}
	var noBid error
	g, asking := errgroup.WithContext(ctx)
	g.Go(func() error {
		bids, noBid = d.bidders(asking, d.client, request, flags.node)
		if errors.As(noBid, new(noBidError)) {
			return nil
		}
		return noBid
	})
	g.Go(func() (err error) { old, err = d.find(asking, f.name); return err })
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	if f.dynamic && noBid != nil {
		noBid = noBidError{fmt.Errorf("%w (%s needs files of its host: only nodes without a sandbox take that; link it statically, as with CGO_ENABLED=0 go build)", noBid, f.path)}
	}
	return bids, old, noBid
}

// nodesOf lists nodes, each once.
func nodesOf(list []running) (nodes []nex.NodeInfo) {
	for _, w := range list {
		if !slices.ContainsFunc(nodes, func(n nex.NodeInfo) bool { return n.NodeID == w.node.NodeID }) {
			nodes = append(nodes, w.node)
		}
	}
	return nodes
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

// stopAll stops workloads that are replaced.
func (d *deployer) stopAll(ctx context.Context, name string, old []running) error {
	for _, w := range old {
		if !d.json {
			fmt.Fprintf(d.stdout, "Workload %s (%s) already exists on the target. Attempting to stop it\n", name, w.id)
		}
		if err := d.stop(ctx, name, w); err != nil {
			return err
		}
	}
	return nil
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
// node that has no room after all is passed over. All copies run in the end,
// or none.
func (d *deployer) spread(ctx context.Context, nodes []nex.NodeInfo, w nex.Workload, copies int) (placed []placement, err error) {
	for len(placed) < copies {
		if len(nodes) == 0 {
			return nil, errors.Join(err, d.undo(ctx, placed))
		}
		node := nodes[0]
		p, refused := d.place(ctx, node, w)
		switch {
		case refused == nil:
			placed = append(placed, p)
			nodes = append(nodes[1:], node)
		case nex.CodeOf(refused) == nex.Exhausted || nex.CodeOf(refused) == nex.LameDuck:
			err, nodes = refused, nodes[1:]
		default:
			return nil, errors.Join(refused, d.undo(ctx, placed))
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
