package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"nex"
)

// verdict is what one node would do with a workload.
type verdict struct {
	nex.Bid // its refusals are empty if it takes the workload
}

func (v verdict) takes() bool { return len(v.Refusals) == 0 }

// lacksRoom reports whether the node would take the workload if another went.
func (v verdict) lacksRoom() bool {
	return !v.takes() && !slices.ContainsFunc(v.Refusals, func(why string) bool {
		return !strings.HasPrefix(why, "is full") && !strings.HasPrefix(why, "has no room")
	})
}

// survey asks every node whether it would take a workload. Those of Nex 0.2.7
// do not say why they would not, and know nothing of some conditions; what
// their tags tell is said for them.
func survey(ctx context.Context, client *nex.Client, r nex.AuctionRequest) ([]verdict, error) {
	r.Explain, r.Namespace = true, client.Namespace()
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
	verdicts := []verdict{}
	for _, n := range nodes {
		bid, bade := bids[n.NodeID]
		if !bade {
			bid.NodeInfo = n
		}
		if len(bid.Refusals) == 0 {
			bid.Refusals = r.Misses(n)
		}
		if !bade && len(bid.Refusals) == 0 {
			bid.Refusals = []string{"does not say why it would not"}
		}
		verdicts = append(verdicts, verdict{bid})
	}
	slices.SortFunc(verdicts, func(a, b verdict) int {
		return cmp.Or(cmp.Compare(a.Name(), b.Name()), cmp.Compare(a.NodeID, b.NodeID))
	})
	return verdicts, nil
}

// errNoNodes means that nobody was there to be asked.
var errNoNodes = unreachableError{errors.New("no nodes discovered (start one with \"nex dev\" or \"nex node up\")")}

// bidders are the verdicts of all nodes, or of the one with this id.
func (c *cli) bidders(ctx context.Context, client *nex.Client, r nex.AuctionRequest, id string) ([]verdict, error) {
	ctx, cancel := c.within(ctx, 0)
	defer cancel()
	verdicts, err := survey(ctx, client, r)
	switch {
	case err != nil:
		return nil, err
	case ctx.Err() == context.Canceled:
		return nil, ctx.Err()
	case id != "":
		verdicts = slices.DeleteFunc(verdicts, func(v verdict) bool { return v.NodeID != id })
		if len(verdicts) == 0 {
			return nil, unreachableError{nex.Errorf(nex.NoSuchNode, "no such node: %s does not answer (nex node ls shows the nodes)", id)}
		}
	case len(verdicts) == 0:
		return nil, unreachableError{fmt.Errorf("unable to locate candidate node - %w", errNoNodes.error)}
	}
	return verdicts, nil
}

// places are nodes in the order in which they are to be asked: those with the
// least to do first.
func places(verdicts []verdict) (nodes []nex.NodeInfo) {
	for _, v := range verdicts {
		nodes = append(nodes, v.NodeInfo)
	}
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	slices.SortStableFunc(nodes, func(a, b nex.NodeInfo) int { return cmp.Compare(a.RunningMachines, b.RunningMachines) })
	return nodes
}

// room is how many copies fit on nodes that take them.
func room(verdicts []verdict) (n int) {
	for _, v := range verdicts {
		switch {
		case !v.takes():
		case v.Room == 0:
			return maxCopies
		default:
			n += v.Room
		}
	}
	return min(n, maxCopies)
}

// summarize counts nodes by the first reason each has, as in "0 of 3 nodes:
// 2 lack tag gpu=true, 1 is in lame duck mode".
func summarize(verdicts []verdict) string {
	takers, counts := 0, map[string]int{}
	for _, v := range verdicts {
		if v.takes() {
			takers++
		} else {
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
	text := fmt.Sprintf("%d of %d nodes", takers, len(verdicts))
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
