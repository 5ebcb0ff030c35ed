package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/choria-io/fisk"
	"github.com/nats-io/nats.go"

	"nex"
)

// runCmd deploys an artifact that is in an Object Store already.
type runCmd struct {
	*cli
	url          string
	xkey, issuer string
	description  string
	deployFlags
}

func (c *cli) addRun(ctx context.Context, app *fisk.Application) {
	r := &runCmd{cli: c}
	cmd := app.Command("run", "Deploy an artifact from an Object Store").Action(action(ctx, r.run))
	cmd.Arg("url", "Where the artifact is: nats://BUCKET/key").Required().StringVar(&r.url)
	cmd.Arg("node", "ID of the node to run on (the nodes are asked who would if not given)").StringVar(&r.node)
	cmd.Arg("env", "Environment of the workload: KEY=VALUE").StringMapVar(&r.env)
	r.deployFlags.add(cmd)
	r.addPlace(cmd)
	cmd.Flag("xkey", "File of the publisher's xkey seed").PlaceHolder("FILE").Required().ExistingFileVar(&r.xkey)
	cmd.Flag("issuer", "File of the issuer's account seed").PlaceHolder("FILE").Required().ExistingFileVar(&r.issuer)
	cmd.Flag("name", "Name of the workload").Required().StringVar(&r.name)
	cmd.Flag("type", "Workload type: native, v8, wasm").Default(string(nex.Native)).EnumVar(&r.typ, "native", "v8", "wasm", "elf")
	cmd.Flag("description", "What the workload is").StringVar(&r.description)
}

func (r *runCmd) run(ctx context.Context) error {
	if err := r.placeArguments(); err != nil {
		return err
	}
	location, err := nex.ParseLocation(r.url)
	if err != nil {
		return err
	}
	src := source{path: r.url, name: r.name, typ: typeNamed(r.typ)}
	if err := r.check(src.name, src.typ); err != nil {
		return err
	}
	keys, err := r.keys()
	if err != nil {
		return err
	}
	client, nc, err := r.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	d := deployer{cli: r.cli, client: client, nc: nc, keys: keys}
	if err := r.stat(ctx, nc, location, &src); err != nil {
		return err
	}
	verdicts, old, err := d.ask(ctx, src, r.deployFlags)
	if err != nil {
		return err
	}
	if len(old) > 0 {
		id, node := old[0].id, old[0].node.NodeID
		return fmt.Errorf("workload '%s' already runs as %s on node %s: stop it first (nex stop %s %s --name %s --issuer %s) or choose another --name",
			r.name, id, node, node, id, r.name, r.issuer)
	}
	nodes, _, err := choose(verdicts, nil, r.count, src)
	if err != nil {
		return err
	}
	w := r.workload(src.name, src.typ)
	w.Location, w.SHA256, w.Description, w.JSDomain = location, src.sha256, r.description, r.conn.jsDomain
	placed, err := d.spread(ctx, nodes, w, r.count)
	if err != nil {
		return err
	}
	return r.printAccepted(placed, r.count)
}

// placeArguments tells a node's id from the first variable of the environment.
func (r *runCmd) placeArguments() error {
	if i := strings.IndexAny(r.node, "=:"); i >= 0 { // as the parser does with the rest
		key, value := r.node[:i], r.node[i+1:]
		if r.node = ""; key == "" {
			return errors.New("a variable of the environment needs a name: KEY=VALUE")
		}
		r.env[key] = value
	}
	if r.node == "" {
		return nil
	}
	return checkNodeID(r.node)
}

// stat asks the Object Store about the artifact, so that the nodes run what is
// there now and nothing else.
func (c *cli) stat(ctx context.Context, nc *nats.Conn, l nex.Location, src *source) error {
	ctx, cancel := c.within(ctx, 0)
	defer cancel()
	js, err := c.jetStream(nc)
	if err != nil {
		return err
	}
	bucket, err := js.ObjectStore(ctx, l.Bucket())
	if err != nil {
		return fmt.Errorf("open bucket %s: %w", l.Bucket(), err)
	}
	info, err := bucket.GetInfo(ctx, l.Key())
	if err != nil {
		return fmt.Errorf("find %s in bucket %s: %w", l.Key(), l.Bucket(), err)
	}
	src.sha256, src.size = nex.ObjectDigest(info.Digest), int64(info.Size)
	return nil
}

func (r *runCmd) keys() (nex.Keys, error) {
	issuer, err := readKey(r.issuer)
	if err != nil {
		return nex.Keys{}, err
	}
	sender, err := readKey(r.xkey)
	return nex.Keys{Issuer: issuer, Sender: sender}, err
}
