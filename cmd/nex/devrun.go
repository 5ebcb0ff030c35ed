package main

import (
	"context"
	"fmt"
	"time"

	"github.com/choria-io/fisk"

	"nex"
)

const (
	// devDescription is what workloads deployed by devrun say of themselves.
	devDescription = "Workload published in devmode"
	// deployWait is how long a deploy may take: an artifact is fetched, a
	// machine boots, a module compiles.
	deployWait = 60 * time.Second
	// stopWait is how long a stop may take: services have a grace period.
	stopWait = 30 * time.Second
)

// devrun is the command that takes a file and makes it run somewhere.
type devrun struct {
	*cli
	file string
	deployFlags
	stop           bool
	bucketMaxBytes int64
}

func (c *cli) addDevrun(ctx context.Context, app *fisk.Application) {
	d := &devrun{cli: c}
	cmd := app.Command("devrun", "Deploy a file from this machine").Alias("yeet").Action(action(ctx, d.run))
	cmd.Arg("file", "A static executable, a .js file or a .wasm module").Required().StringVar(&d.file)
	cmd.Arg("env", "Environment of the workload: KEY=VALUE").StringMapVar(&d.env)
	d.deployFlags.add(cmd)
	d.addPlace(cmd)
	cmd.Flag("type", "Workload type: native, v8, wasm (told from the file if not given)").EnumVar(&d.typ, "native", "v8", "wasm", "elf")
	cmd.Flag("name", "Name of the workload (the file's name without dots if not given)").StringVar(&d.name)
	cmd.Flag("node", "ID of the node to run on (the nodes are asked who would if not given)").PlaceHolder("ID").StringVar(&d.node)
	cmd.Flag("stop", "Replace a running workload of the same name").Default("true").BoolVar(&d.stop)
	cmd.Flag("bucketmaxbytes", "Size limit of the upload bucket, if this creates it").Default(fmt.Sprint(defaultBucketBytes)).Int64Var(&d.bucketMaxBytes)
}

func (d *devrun) run(ctx context.Context) error {
	f, err := readSource(d.file, nex.WorkloadType(d.typ), d.name)
	if err != nil {
		return err
	}
	if err := d.deployFlags.check(f.name, f.typ); err != nil {
		return err
	}
	if d.node != "" {
		if err := checkNodeID(d.node); err != nil {
			return err
		}
	}
	client, nc, err := d.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	keys, err := d.devKeys()
	if err != nil {
		return err
	}
	dep := deployer{cli: d.cli, client: client, nc: nc, keys: keys, replace: d.stop, bucketMaxBytes: d.bucketMaxBytes}
	placed, err := dep.deploy(ctx, f, d.deployFlags)
	if err != nil {
		return err
	}
	return d.printAccepted(placed, d.count)
}
