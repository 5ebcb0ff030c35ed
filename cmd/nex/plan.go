package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/choria-io/fisk"
	"github.com/jedib0t/go-pretty/v6/table"
	"golang.org/x/sync/errgroup"

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

func (p *planCmd) print(verdicts []verdict) error {
	takers := takers(verdicts)
	switch {
	case p.json:
		if err := p.printJSON(verdicts); err != nil {
			return err
		}
	case len(verdicts) > 0:
		t := newTable(summarize(verdicts))
		t.AppendHeader(table.Row{"ID", "Name", "Workloads", "Takes it", "Why not"})
		for _, v := range verdicts {
			takes := "yes"
			if !v.Takes {
				takes = "no"
			}
			t.AppendRow(table.Row{v.Node, v.Name, v.Workloads, takes, strings.Join(v.Refusals, "\n")})
		}
		fmt.Fprintln(p.stdout, t.Render())
	}
	switch {
	case len(verdicts) == 0:
		return unreachableError{errors.New("no nodes discovered (start one with \"nex dev\" or \"nex node up\")")}
	case takers == 0:
		return refusedError{errors.New(summarize(verdicts))}
	}
	return nil
}

// verdict is what one node would do with a workload.
type verdict struct {
	Node      string   `json:"node"`
	Name      string   `json:"name"`
	Workloads int      `json:"workloads"` // it runs now
	Takes     bool     `json:"takes"`
	Refusals  []string `json:"refusals,omitempty"`
}

// survey asks every node whether it would take a workload. Those of Nex 0.2.7
// do not say why they would not; what their tags tell is said for them.
func survey(ctx context.Context, client *nex.Client, r nex.AuctionRequest) ([]verdict, error) {
	r.Explain = true
	var nodes []nex.NodeInfo
	bids := map[string]nex.Bid{}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for n, err := range client.Nodes(ctx, nex.NodeFilter{}) {
			if err != nil {
				return err
			}
			nodes = append(nodes, n)
		}
		return nil
	})
	g.Go(func() error {
		for b, err := range client.Auction(ctx, r) {
			if err != nil {
				return err
			}
			bids[b.NodeID] = b
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var verdicts []verdict
	for _, n := range nodes {
		bid, answered := bids[n.NodeID]
		why := bid.Refusals
		if !answered {
			if why = r.Misses(n); len(why) == 0 {
				why = []string{"does not say why it would not"}
			}
		}
		verdicts = append(verdicts, verdict{n.NodeID, n.Name(), n.RunningMachines, len(why) == 0, why})
	}
	slices.SortFunc(verdicts, func(a, b verdict) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Node, b.Node))
	})
	return verdicts, nil
}

func takers(verdicts []verdict) (n int) {
	for _, v := range verdicts {
		if v.Takes {
			n++
		}
	}
	return n
}

// summarize counts nodes by the first reason each has, as in "0 of 3 nodes
// take it: 2 lack tag gpu=true, 1 is in lame duck mode".
func summarize(verdicts []verdict) string {
	counts := map[string]int{}
	for _, v := range verdicts {
		if !v.Takes {
			counts[v.Refusals[0]]++
		}
	}
	reasons := make([]string, 0, len(counts))
	for why := range counts {
		reasons = append(reasons, why)
	}
	slices.SortFunc(reasons, func(a, b string) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	for i, why := range reasons {
		n := counts[why]
		if n > 1 {
			why = plural(why)
		}
		reasons[i] = fmt.Sprintf("%d %s", n, why)
	}
	text := fmt.Sprintf("%d of %d nodes", takers(verdicts), len(verdicts))
	if len(reasons) > 0 {
		text += ": " + strings.Join(reasons, ", ")
	}
	return text
}

// plural makes a refusal of one node one of several: refusals begin with a
// verb.
func plural(refusal string) string {
	verb, rest, _ := strings.Cut(refusal, " ")
	switch verb {
	case "is":
		verb = "are"
	case "has":
		verb = "have"
	case "does":
		verb = "do"
	default:
		verb = strings.TrimSuffix(verb, "s")
	}
	return verb + " " + rest
}
