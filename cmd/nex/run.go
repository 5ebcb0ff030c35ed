package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/choria-io/fisk"

	"nex"
)

// runCmd deploys an artifact that is in an Object Store already.
type runCmd struct {
	*cli
	url, node    string
	xkey, issuer string
	description  string
	deployFlags
}

func (c *cli) addRun(ctx context.Context, app *fisk.Application) {
	r := &runCmd{cli: c}
	cmd := app.Command("run", "Deploy an artifact from an Object Store").Action(action(ctx, r.run))
	cmd.Arg("url", "Where the artifact is: nats://BUCKET/key").Required().StringVar(&r.url)
	cmd.Arg("node", "ID of the node to run on").Required().StringVar(&r.node)
	cmd.Arg("env", "Environment of the workload: KEY=VALUE").StringMapVar(&r.env)
	r.deployFlags.add(cmd)
	cmd.Flag("xkey", "File of the publisher's xkey seed").PlaceHolder("FILE").Required().ExistingFileVar(&r.xkey)
	cmd.Flag("issuer", "File of the issuer's account seed").PlaceHolder("FILE").Required().ExistingFileVar(&r.issuer)
	cmd.Flag("name", "Name of the workload").Required().StringVar(&r.name)
	cmd.Flag("type", "Workload type: native, v8, wasm").Default(string(nex.Native)).EnumVar(&r.typ, "native", "v8", "wasm", "elf")
	cmd.Flag("description", "What the workload is").StringVar(&r.description)
}

func (r *runCmd) run(ctx context.Context) error {
	if err := checkNodeID(r.node); err != nil {
		return err
	}
	location, err := nex.ParseLocation(r.url)
	if err != nil {
		return err
	}
	f := source{name: r.name, typ: nex.WorkloadType(r.typ)}
	if err := checkTriggers(f, r.triggers); err != nil {
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
	info, err := r.info(ctx, client)
	if err != nil {
		return err
	}
	d := deployer{cli: r.cli, client: client, nc: nc, keys: keys}
	digest, err := d.digest(ctx, location)
	if err != nil {
		return err
	}
	placed, err := d.place(ctx, nex.NodeInfo{NodeID: r.node, TargetXkey: info.PublicXkey}, nex.Workload{
		Name: r.name, Type: f.typ, Location: location, SHA256: digest, Description: r.description, Argv: strings.Fields(r.argv),
		Environment: r.env, Essential: r.essential, TriggerSubjects: r.triggers,
		FunctionTimeout: r.timeout, JSDomain: r.conn.jsDomain,
	})
	if err != nil {
		return err
	}
	return r.printAccepted(placed)
}

// info asks the node for its public xkey, and refuses a name it runs already.
func (r *runCmd) info(ctx context.Context, client *nex.Client) (nex.InfoReply, error) {
	ctx, cancel := r.within(ctx, 0)
	defer cancel()
	info, err := client.Info(ctx, r.node)
	if err != nil {
		return info, answered(err)
	}
	for _, m := range info.Machines {
		if m.Workload.Name == r.name {
			return info, fmt.Errorf("workload '%s' already runs on this node as %s: stop it first (nex stop %s %s --name %s --issuer %s) or choose another --name",
				r.name, m.ID, r.node, m.ID, r.name, r.issuer)
		}
	}
	return info, nil
}

func (r *runCmd) keys() (nex.Keys, error) {
	issuer, err := readKey(r.issuer)
	if err != nil {
		return nex.Keys{}, err
	}
	sender, err := readKey(r.xkey)
	return nex.Keys{Issuer: issuer, Sender: sender}, err
}
