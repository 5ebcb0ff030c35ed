package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/choria-io/fisk"
	"github.com/dustin/go-humanize"
	"github.com/jedib0t/go-pretty/v6/table"

	"nex"
	"nex/internal/config"
)

func (c *cli) addNode(ctx context.Context, app *fisk.Application) {
	node := app.Command("node", "Run and look at nodes").Alias("nodes")
	c.addNodeLs(ctx, node)
	c.addNodeInfo(ctx, node)
	c.addNodeProbe(ctx, node)
	c.addNodePlan(ctx, node)
	c.addNodeUp(ctx, node)
	c.addNodePreflight(ctx, node)
	node.Command("config", "List the keys of a node's configuration file").Action(func(*fisk.ParseContext) error { return c.nodeConfig() })
}

func (c *cli) nodeConfig() error {
	if c.json {
		return c.printJSON(config.Keys())
	}
	return config.WriteReference(c.stdout)
}

func (c *cli) addNodeLs(ctx context.Context, node *fisk.CmdClause) {
	full := false
	cmd := node.Command("ls", "List the nodes").Alias("list").Action(c.asking(ctx, func(ctx context.Context, client *nex.Client) error { return c.nodeLs(ctx, client, full) }))
	cmd.Flag("full", "Show nexus, sandbox, OS and architecture too").UnNegatableBoolVar(&full)
}

func (c *cli) nodeLs(ctx context.Context, client *nex.Client, full bool) error {
	nodes := []nex.NodeInfo{}
	for n, err := range client.Nodes(ctx, nex.NodeFilter{}) {
		if err != nil {
			return err
		}
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b nex.NodeInfo) int {
		return cmp.Or(cmp.Compare(nexusOf(a), nexusOf(b)), cmp.Compare(a.Name(), b.Name()), cmp.Compare(a.NodeID, b.NodeID))
	})
	switch {
	case c.json:
		return c.printJSON(nodes)
	case len(nodes) == 0:
		fmt.Fprintln(c.stdout, "No nodes discovered")
		return nil
	}
	fmt.Fprintln(c.stdout, nodeTable(nodes, full))
	return nil
}

func nodeTable(nodes []nex.NodeInfo, full bool) string {
	t := newTable("NATS Execution Nodes")
	lame := slices.ContainsFunc(nodes, nex.NodeInfo.LameDuck)
	id := "ID"
	if lame {
		id = "ID (* = Lameduck Mode)"
	}
	header := table.Row{id, "Name", "Version", "Workloads", "Uptime"}
	if full {
		header = append(table.Row{"Nexus"}, append(header, "Sandbox", "OS", "Arch")...)
	}
	t.AppendHeader(header)
	for _, n := range nodes {
		id := n.NodeID
		if n.LameDuck() {
			id += "*"
		}
		row := table.Row{id, n.Name(), n.Version, n.RunningMachines, n.Uptime}
		if full {
			row = append(table.Row{nexusOf(n)}, append(row, n.Sandbox(), n.Tags[nex.TagOS], n.Tags[nex.TagArch])...)
		}
		t.AppendRow(row)
	}
	return t.Render()
}

func nexusOf(n nex.NodeInfo) string { return cmp.Or(n.Nexus, n.Tags["nexus"]) }

func (c *cli) addNodeInfo(ctx context.Context, node *fisk.CmdClause) {
	var id string
	cmd := node.Command("info", "Describe a node and its workloads in the namespace").Action(c.asking(ctx, func(ctx context.Context, client *nex.Client) error { return c.nodeInfo(ctx, client, id) }))
	cmd.Arg("id", "ID of the node").Required().StringVar(&id)
	cmd.Flag("full", "Accepted for Nex 0.2.7: all is shown anyway").Hidden().UnNegatableBool()
}

func (c *cli) nodeInfo(ctx context.Context, client *nex.Client, id string) error {
	if err := checkNodeID(id); err != nil {
		return err
	}
	info, err := client.Info(ctx, id)
	if err != nil {
		return answered(err)
	}
	if c.json {
		return c.printJSON(info)
	}
	printInfo(c.stdout, id, info)
	return nil
}

func printInfo(w io.Writer, id string, info nex.InfoReply) {
	var tags []string
	for _, key := range slices.Sorted(maps.Keys(info.Tags)) {
		tags = append(tags, escape(key+"="+info.Tags[key]))
	}
	kB := func(n int) string { return humanize.Comma(int64(n)) }
	fmt.Fprintf(w, "NEX Node Information\n\n")
	fmt.Fprintf(w, "        Node: %s\n", id)
	fmt.Fprintf(w, "        Xkey: %s\n", escape(info.PublicXkey))
	fmt.Fprintf(w, "     Version: %s\n", escape(info.Version))
	fmt.Fprintf(w, "      Uptime: %s\n", escape(info.Uptime))
	fmt.Fprintf(w, "        Tags: %s\n\n", strings.Join(tags, ", "))
	fmt.Fprintf(w, "Memory in kB:\n\n")
	fmt.Fprintf(w, "        Free: %s   Available: %s\n", kB(info.Memory.Free), kB(info.Memory.Available))
	fmt.Fprintf(w, "       Total: %s\n\n", kB(info.Memory.Total))
	fmt.Fprintf(w, "Workloads:\n")
	for _, m := range info.Machines {
		fmt.Fprintf(w, "\n          Id: %s   Healthy: %t\n", escape(m.ID), m.Healthy)
		fmt.Fprintf(w, "     Runtime: %s   Name: %s\n", escape(m.Workload.Runtime), escape(m.Workload.Name))
		fmt.Fprintf(w, " Description: %s\n", escape(m.Workload.Description))
		printHealth(w, m)
	}
	for _, late := range info.Waiting {
		fmt.Fprintf(w, "\n        Name: %s   Not started: %d attempts failed\n", escape(late.Name), late.Attempts)
		fmt.Fprintf(w, "      Reason: %s\n", escape(late.Reason))
	}
	if len(info.Machines)+len(info.Waiting) == 0 {
		fmt.Fprintf(w, "\n        none in this namespace\n")
	}
}

// printHealth tells what there is to say of a workload besides that it runs.
func printHealth(w io.Writer, m nex.MachineSummary) {
	if m.Unhealthy != "" {
		fmt.Fprintf(w, "   Unhealthy: %s\n", escape(m.Unhealthy))
	}
	if m.Restarts > 0 && m.LastExit != nil {
		fmt.Fprintf(w, "    Restarts: %d, the last %s ago: %s\n", m.Restarts, time.Since(m.LastExit.At).Round(time.Second), escape(m.LastExit.Reason))
	}
	if u := m.Usage; u != nil {
		fmt.Fprintf(w, "       Usage: %s CPU time, %s memory, %d processes and threads\n",
			time.Duration(u.CPUMS)*time.Millisecond, humanize.IBytes(uint64(max(u.MemoryBytes, 0))), u.PIDs)
	}
}

// checkNodeID refuses what cannot be part of a subject.
func checkNodeID(id string) error {
	if !nex.ValidToken(id) {
		return fmt.Errorf("%q is no node ID (nex node ls shows them)", id)
	}
	return nil
}
