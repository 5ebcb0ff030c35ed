package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// deployFlags are the settings of a workload that run, devrun and dev share.
type deployFlags struct {
	name      string
	typ       string
	argv      string
	essential bool
	triggers  []string
	timeout   time.Duration
	env       map[string]string
}

func (f *deployFlags) add(cmd *fisk.CmdClause) {
	f.env = map[string]string{}
	cmd.Flag("trigger_subject", "Subject that triggers a function; repeat for several").PlaceHolder("SUBJECT").StringsVar(&f.triggers)
	cmd.Flag("argv", "Arguments of a service, separated by spaces").StringVar(&f.argv)
	cmd.Flag("essential", "Start a service again when it fails").BoolVar(&f.essential)
	cmd.Flag("function_timeout", "How long one call of a function may take (the node's default if not given)").PlaceHolder("4s").DurationVar(&f.timeout)
}

func (c *cli) addDevrun(ctx context.Context, app *fisk.Application) {
	d := &devrun{cli: c}
	cmd := app.Command("devrun", "Deploy a file from this machine").Alias("yeet").Action(action(ctx, d.run))
	cmd.Arg("file", "A static executable, a .js file or a .wasm module").Required().StringVar(&d.file)
	cmd.Arg("env", "Environment of the workload: KEY=VALUE").StringMapVar(&d.env)
	d.deployFlags.add(cmd)
	cmd.Flag("type", "Workload type: native, v8, wasm (told from the file if not given)").EnumVar(&d.typ, "native", "v8", "wasm", "elf")
	cmd.Flag("name", "Name of the workload (the file's name without dots if not given)").StringVar(&d.name)
	cmd.Flag("stop", "Replace a running workload of the same name").Default("true").BoolVar(&d.stop)
	cmd.Flag("bucketmaxbytes", "Size limit of the upload bucket, if this creates it").Default(fmt.Sprint(defaultBucketBytes)).Int64Var(&d.bucketMaxBytes)
}

func (d *devrun) run(ctx context.Context) error {
	f, err := readSource(d.file, nex.WorkloadType(d.typ), d.name)
	if err != nil {
		return err
	}
	if err := checkTriggers(f, d.triggers); err != nil {
		return err
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
	return d.printAccepted(placed)
}

// checkTriggers refuses what no node would take.
func checkTriggers(f source, triggers []string) error {
	if f.typ.IsFunction() && len(triggers) == 0 {
		return fmt.Errorf("cannot start a function-type workload without specifying at least one trigger subject: add --trigger_subject SUBJECT")
	}
	if !f.typ.IsFunction() && len(triggers) > 0 {
		return fmt.Errorf("%s is a service: --trigger_subject is for functions", f.name)
	}
	for _, t := range triggers {
		if err := nex.ValidTrigger(t); err != nil {
			return err
		}
	}
	return nil
}

// placement tells where a workload runs.
type placement struct {
	nex.DeployReply
	Node string `json:"node"`
}

func (c *cli) printAccepted(p placement) error {
	if c.json {
		return c.printJSON(p)
	}
	_, err := fmt.Fprintf(c.stdout, "🚀 Workload '%s' accepted. You can now refer to this workload with its ID: %s on node %s\n", p.Name, p.ID, p.Node)
	return err
}

// candidate asks the nodes who could run f and takes one of them at random.
func (c *cli) candidate(ctx context.Context, client *nex.Client, f source) (nex.NodeInfo, error) {
	ctx, cancel := c.within(ctx, 0)
	defer cancel()
	offer := nex.AuctionRequest{WorkloadTypes: []nex.WorkloadType{f.typ}, OS: f.os, Arch: f.arch}
	if f.dynamic {
		no := false
		offer.Sandboxed = &no
	}
	var nodes []nex.NodeInfo
	for n, err := range client.Auction(ctx, offer) {
		if err != nil {
			return nex.NodeInfo{}, err
		}
		nodes = append(nodes, n)
	}
	if len(nodes) > 0 {
		return nodes[rand.IntN(len(nodes))], nil
	}
	if ctx.Err() == context.Canceled {
		return nex.NodeInfo{}, ctx.Err()
	}
	return nex.NodeInfo{}, c.whyNone(client, f)
}

// noBidError means that there are nodes, but none offers.
type noBidError struct{ error }

// whyNone explains an auction without a bid.
func (c *cli) whyNone(client *nex.Client, f source) error {
	ctx, cancel := c.within(context.Background(), 0)
	defer cancel()
	n := 0
	for _, err := range client.Nodes(ctx) {
		if err == nil {
			n++
		}
	}
	if n == 0 {
		return unreachableError{errors.New("unable to locate candidate node - no nodes discovered (start one with \"nex dev\" or \"nex node up\")")}
	}
	kind := string(f.typ)
	if f.arch != "" {
		kind += " for " + f.os + "/" + f.arch
	}
	why := fmt.Sprintf("none of %d nodes takes %s workloads now: they are full, in lame duck mode, or do not run that (nex node ls --full shows them)", n, kind)
	if f.dynamic {
		why = fmt.Sprintf("%s needs files of its host and none of %d nodes without a sandbox takes it: link it statically, as with CGO_ENABLED=0 go build", f.path, n)
	}
	return noBidError{refusedError{fmt.Errorf("unable to locate candidate node - %s", why)}}
}

func (e noBidError) Unwrap() error { return e.error }
