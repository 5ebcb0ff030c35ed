package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/choria-io/fisk"
	"github.com/jedib0t/go-pretty/v6/table"

	"nex"
)

func (c *cli) addNodeProbe(ctx context.Context, node *fisk.CmdClause) {
	var workload string
	cmd := node.Command("probe", "Find the workloads of the namespace, and the nodes they run on").Action(c.asking(ctx, func(ctx context.Context, client *nex.Client) error { return c.nodeProbe(ctx, client, workload) }))
	cmd.Flag("workload", "Only workloads with this ID or name").PlaceHolder("ID|NAME").StringVar(&workload)
}

func (c *cli) nodeProbe(ctx context.Context, client *nex.Client, workload string) error {
	if workload != "" && !nex.ValidToken(workload) {
		return fmt.Errorf("%q can be no workload's ID or name", workload)
	}
	nodes := []nex.NodeWorkloads{}
	for n, err := range client.Workloads(ctx, workload) {
		if err != nil {
			return err
		}
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b nex.NodeWorkloads) int { return cmp.Compare(a.NodeID, b.NodeID) })
	switch {
	case c.json:
		return c.printJSON(nodes)
	case len(nodes) == 0:
		fmt.Fprintln(c.stdout, "No workloads matched")
		return nil
	}
	fmt.Fprintln(c.stdout, workloadTable(nodes))
	return nil
}

func workloadTable(nodes []nex.NodeWorkloads) string {
	t := newTable("Discovered Workloads")
	t.AppendHeader(table.Row{"ID", "Name", "Type", "Namespace", "Node Name"})
	for _, n := range nodes {
		name := nex.NodeInfo{Tags: n.Tags}.Name()
		for _, w := range n.RunningMachines {
			t.AppendRow(table.Row{w.ID, w.Name, w.Type, w.Namespace, name})
		}
	}
	t.SortBy([]table.SortBy{{Name: "Name"}, {Name: "ID"}})
	return t.Render()
}
