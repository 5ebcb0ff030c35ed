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
	for _, t := range r.WorkloadTypes {
		known, ok := n.supports(t)
		if !ok {
			refuse("takes no %.16s workloads", t)
			continue
		}
		c := &candidate{request: nex.DeployRequest{TriggerSubjects: r.TriggerSubjects, Settings: r.Settings}}
		c.request.Settings.Sandbox = "" // it was compared already
		c.spec.Type = known
		if len(r.TriggerSubjects) > 0 {
			if err := n.checkTriggers(c); err != nil {
				refuse("refuses it: %v", err)
			}
		}
		if err := n.checkSettings(c); err != nil {
			refuse("refuses it: %v", err)
		}
	}
	const most = 16 // reasons are enough
	return why[:min(len(why), most)]
}
