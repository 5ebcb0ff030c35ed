package node

import (
	"fmt"
	"slices"

	"nex"
)

// refusals are the reasons why the node would refuse a workload, in the form
// of [nex.Bid]. They are those of admission, as far as a request to all nodes
// tells what a deploy request would.
func (n *node) refusals(r nex.AuctionRequest, info nex.NodeInfo) []string {
	why := r.Misses(info)
	refuse := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	if n.workloads.Full() {
		refuse("is full: it runs %d workloads", n.cfg.Settings.Limits.MaxWorkloads)
	}
	if !n.workloads.Fits(r.Bytes) {
		refuse("has no room for %d bytes", r.Bytes)
	}
	if valid := n.cfg.Settings.ValidIssuers; r.Issuer != "" && len(valid) > 0 && !slices.Contains(valid, r.Issuer) {
		refuse("takes nothing from issuer %.56s", r.Issuer)
	}
	const most = 16 // types and reasons are enough
	for _, t := range r.WorkloadTypes[:min(len(r.WorkloadTypes), most)] {
		if _, ok := n.supports(t); !ok {
			refuse("takes no %.16s workloads", t)
		}
	}
	imagined := n.imagine(r)
	for _, check := range []check{{"namespace", (*node).checkNamespace}, {"triggers", (*node).checkTriggers}, {"settings", (*node).checkSettings}, {"resources", (*node).checkResources}} {
		if err := check.test(n, imagined); err != nil && len(r.WorkloadTypes) > 0 {
			refuse("refuses it: %v", err)
		}
	}
	return why[:min(len(why), most)]
}

// imagine makes the candidate that the winner of an auction would be asked to
// run, as far as is known.
func (n *node) imagine(r nex.AuctionRequest) *candidate {
	c := &candidate{namespace: r.Namespace, request: nex.DeployRequest{TriggerSubjects: r.TriggerSubjects, Settings: r.Settings}}
	c.request.Settings.Sandbox = "" // it was compared already
	if c.namespace == "" {
		c.namespace = nex.DefaultNamespace
	}
	if len(r.WorkloadTypes) > 0 {
		c.spec.Type, _ = n.supports(r.WorkloadTypes[0])
	}
	if c.spec.Type.IsFunction() && len(r.TriggerSubjects) == 0 {
		c.request.TriggerSubjects = []string{"unknown"} // old clients do not say
	}
	return c
}
