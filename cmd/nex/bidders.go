package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	"nex"
)

// placement tells where a copy of a workload runs.
type placement struct {
	nex.DeployReply
	Node string `json:"node"`
}

// printAccepted tells where copies run: as one JSON object if one was asked
// for, else as a list.
func (c *cli) printAccepted(placed []placement, asked int) error {
	switch {
	case c.json && asked == 1:
		return c.printJSON(placed[0])
	case c.json:
		return c.printJSON(placed)
	}
	for _, p := range placed {
		fmt.Fprintf(c.stdout, "🚀 Workload '%s' accepted. You can now refer to this workload with its ID: %s on node %s\n", escape(p.Name), escape(p.ID), p.Node)
	}
	return nil
}

// noBidError means that there are nodes, but none would take the workload.
type noBidError struct{ error }

func (e noBidError) Unwrap() error { return e.error }

// bidders asks the nodes, or the one with this id, who would take a workload.
// Those with the least to do come first.
func (c *cli) bidders(ctx context.Context, client *nex.Client, r nex.AuctionRequest, id string) ([]nex.NodeInfo, error) {
	ctx, cancel := c.within(ctx, 0)
	defer cancel()
	if id != "" {
		n, err := client.Ping(ctx, id)
		return []nex.NodeInfo{n}, answered(err) // what it would refuse, it says when asked to deploy
	}
	var nodes []nex.NodeInfo
	for bid, err := range client.Auction(ctx, r) {
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, bid.NodeInfo)
	}
	if ctx.Err() == context.Canceled {
		return nil, ctx.Err()
	}
	if len(nodes) == 0 {
		return nil, c.whyNone(client, r)
	}
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	slices.SortStableFunc(nodes, func(a, b nex.NodeInfo) int { return cmp.Compare(a.RunningMachines, b.RunningMachines) })
	return nodes, nil
}

// whyNone explains an auction without a bid.
func (c *cli) whyNone(client *nex.Client, r nex.AuctionRequest) error {
	ctx, cancel := c.within(context.Background(), 0)
	defer cancel()
	verdicts, err := survey(ctx, client, r)
	switch {
	case err != nil:
		return err
	case len(verdicts) == 0:
		return unreachableError{errors.New("unable to locate candidate node - no nodes discovered (start one with \"nex dev\" or \"nex node up\")")}
	}
	return noBidError{refusedError{fmt.Errorf("unable to locate candidate node - %s", summarize(verdicts))}}
}
