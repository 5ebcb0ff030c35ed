package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/choria-io/fisk"
	"github.com/jedib0t/go-pretty/v6/table"

	"nex"
)

// planCmd asks the nodes about a workload and deploys nothing.
type planCmd struct {
	*cli
	file, issuer string
	deployFlags
}

func (c *cli) addNodePlan(ctx context.Context, node *fisk.CmdClause) {
	p := &planCmd{cli: c}
	cmd := node.Command("plan", "Tell which nodes would take a workload and why others would not, without deploying it").Action(action(ctx, p.run))
	cmd.Arg("workload", "A file, as for devrun, or nats://BUCKET/key, as for run").Required().StringVar(&p.file)
	p.deployFlags.add(cmd)
	p.addPlace(cmd)
	cmd.Flag("type", "Workload type: native, v8, wasm (told from the file if not given)").EnumVar(&p.typ, "native", "v8", "wasm", "elf")
	cmd.Flag("issuer", "File of the seed that is going to sign").PlaceHolder("~/.nex/issuer.nk").StringVar(&p.issuer)
}

func (p *planCmd) run(ctx context.Context) error {
	keys, err := p.keys()
	if err != nil {
		return err
	}
	location, located := nex.ParseLocation(p.file)
	src := source{name: "workload", typ: cmp.Or(typeNamed(p.typ), nex.Native)}
	if located != nil {
		if src, err = readSource(p.file, nex.WorkloadType(p.typ), "plan"); err != nil {
			return err
		}
	}
	if len(p.triggers) == 0 && src.typ.IsFunction() {
		p.triggers = []string{"plan"} // the subject does not matter
	}
	if err := p.check(p.file, src.typ); err != nil {
		return err
	}
	client, nc, err := p.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	if located == nil {
		if err := p.stat(ctx, nc, location, &src); err != nil {
			return err
		}
	}
	request, err := p.auction(src, keys)
	if err != nil {
		return err
	}
	ctx, cancel := p.within(ctx, 0)
	defer cancel()
	verdicts, err := survey(ctx, client, request)
	if err != nil {
		return err
	}
	return p.print(verdicts)
}

// keys reads the issuer's key, if there is one.
func (p *planCmd) keys() (nex.Keys, error) {
	path := p.issuer
	if path == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return nex.Keys{}, nil // it was not asked for
		}
		path = filepath.Join(home, ".nex", "issuer.nk")
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nex.Keys{}, nil
		}
	}
	issuer, err := readKey(path)
	return nex.Keys{Issuer: issuer}, err
}

// planned is a verdict as JSON.
type planned struct {
	Node      string   `json:"node"`
	Name      string   `json:"name"`
	Workloads int      `json:"workloads"` // it runs now
	Takes     bool     `json:"takes"`
	Refusals  []string `json:"refusals,omitempty"`
}

func (p *planCmd) print(verdicts []verdict) error {
	list := []planned{}
	t := newTable(summarize(verdicts))
	t.AppendHeader(table.Row{"ID", "Name", "Workloads", "Takes it", "Why not"})
	for _, v := range verdicts {
		list = append(list, planned{v.NodeID, v.Name(), v.RunningMachines, v.takes(), v.Refusals})
		takes := "yes"
		if !v.takes() {
			takes = "no"
		}
		t.AppendRow(table.Row{v.NodeID, v.Name(), v.RunningMachines, takes, strings.Join(v.Refusals, "\n")})
	}
	switch {
	case p.json:
		if err := p.printJSON(list); err != nil {
			return err
		}
	case len(verdicts) > 0:
		fmt.Fprintln(p.stdout, t.Render())
	}
	switch n := room(verdicts); {
	case len(verdicts) == 0:
		return errNoNodes
	case n == 0:
		return refusedError{errors.New(summarize(verdicts))}
	case n < p.count:
		return refusedError{fmt.Errorf("there is room for %d of %d copies", n, p.count)}
	}
	return nil
}
