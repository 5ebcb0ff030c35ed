package node

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"nex"
	"nex/internal/control"
	"nex/internal/workload"
)

var (
	_ control.Backend   = (*node)(nil)
	_ control.Directory = (*node)(nil)
)

// Deploy admits and runs a workload.
func (n *node) Deploy(ctx context.Context, namespace string, r nex.DeployRequest) (nex.DeployReply, error) {
	return n.deploy(ctx, n.candidate(namespace, r))
}

func (n *node) deploy(ctx context.Context, c *candidate) (nex.DeployReply, error) {
	if err := n.checkLameDuck(nil); err != nil { // first: a full node in lame duck mode says so
		return nex.DeployReply{}, err
	}
	slot, err := n.workloads.Reserve()
	if err != nil {
		return nex.DeployReply{}, err
	}
	defer slot.Release()
	spec, err := n.admit(c)
	if err != nil {
		return nex.DeployReply{}, err
	}
	id, err := n.workloads.Deploy(ctx, slot, spec)
	if err != nil {
		n.log.Warn("Deploy failed", "namespace", c.namespace, "name", spec.Name, "artifact", spec.Artifact.String(), "error", err)
		return nex.DeployReply{}, err
	}
	if err := n.keep(c, id); err != nil {
		n.log.Error("A workload is stopped: it could not be recorded", "namespace", c.namespace, "name", spec.Name, "id", id, "error", err)
		return nex.DeployReply{}, errors.Join(
			nex.Errorf(nex.Unavailable, "Failed to deploy workload: the node cannot record it: its disk may be full"),
			n.workloads.Stop(context.WithoutCancel(ctx), id))
	}
	return nex.DeployReply{Started: true, ID: id, Issuer: spec.Claims.Issuer, Name: spec.Name}, nil
}

// Stop ends a workload of the namespace on its issuer's word.
func (n *node) Stop(ctx context.Context, namespace string, r nex.StopRequest) (nex.StopReply, error) {
	s, ok := n.workloads.Get(namespace, r.WorkloadID)
	if !ok {
		return nex.StopReply{}, nex.Errorf(nex.NotFound, "No such workload")
	}
	if err := n.admitStop(r, s); err != nil {
		n.log.Info("Stop refused", "namespace", namespace, "id", s.ID, "error", brief(err))
		return nex.StopReply{}, err
	}
	if err := n.workloads.Stop(ctx, s.ID); err != nil {
		return nex.StopReply{}, err
	}
	return nex.StopReply{Stopped: true, ID: s.ID, Issuer: s.Spec.Claims.Issuer, Name: s.Spec.Name}, nil
}

// Info describes the node and the workloads of one namespace.
func (n *node) Info(_ context.Context, namespace string) (nex.InfoReply, error) {
	reply := nex.InfoReply{
		Version: n.cfg.Version, Uptime: n.uptime(), PublicXkey: n.identity.xkey, Tags: n.tags(),
		AutostartIssuer: n.starter.issuer, Waiting: n.starter.left(namespace),
		Memory: hostMemory(), Machines: []nex.MachineSummary{}, SupportedWorkloadTypes: n.cfg.Settings.WorkloadTypes,
	}
	for _, s := range n.workloads.List() {
		if s.Spec.Namespace == namespace {
			m := summary(s)
			m.Usage = n.workloads.Usage(s.ID)
			reply.Machines = append(reply.Machines, m)
		}
	}
	return reply, nil
}

func summary(s workload.Summary) nex.MachineSummary {
	runtime := nex.FormatUptime(s.Uptime)
	if s.Spec.Type.IsFunction() {
		runtime = nex.FormatRuntime(s.Busy)
	}
	return nex.MachineSummary{
		ID: s.ID, Healthy: s.Healthy, Uptime: nex.FormatUptime(s.Uptime), Namespace: s.Spec.Namespace,
		Workload: nex.WorkloadSummary{
			Name: s.Spec.Name, Description: s.Spec.Description, Runtime: runtime, Type: s.Spec.Type, Hash: s.SHA256,
			HostCallsRefused: s.Refused,
		},
		Unhealthy: s.Unhealthy, Restarts: s.Restarts, LastExit: s.LastExit,
	}
}

// LameDuck makes the node take no new work, and ends what it runs if it is asked
// to. Each has effects once.
func (n *node) LameDuck(_ context.Context, r nex.LameDuckRequest) (nex.LameDuckReply, error) {
	if err := n.admitLameDuck(r); err != nil {
		n.log.Warn("Lame duck mode refused", "error", brief(err))
		return nex.LameDuckReply{}, err
	}
	if n.lameDuck.CompareAndSwap(false, true) {
		n.workloads.EndRestarts()
		n.starter.stop()
		n.log.Warn("Node entered lame duck mode")
		n.reporter.system(nex.NodeEnteredLameDuck{Version: n.cfg.Version, ID: n.identity.id})
	}
	if r.Drain {
		n.startDrain()
	}
	return nex.LameDuckReply{NodeID: n.identity.id, Success: true, Drain: n.progress()}, nil
}

// Ping says who the node is.
func (n *node) Ping() nex.NodeInfo {
	return nex.NodeInfo{
		NodeID: n.identity.id, Nexus: n.cfg.Nexus, Version: n.cfg.Version, Uptime: n.uptime(),
		TargetXkey: n.identity.xkey, Tags: n.tags(), RunningMachines: len(n.workloads.List()), Drain: n.progress(),
	}
}

// Auction bids if the node would take what is asked for; else it says why not
// if it is asked to, or stays silent.
func (n *node) Auction(r nex.AuctionRequest) (nex.Bid, bool) {
	bid := nex.Bid{NodeInfo: n.Ping()}
	bid.Room = n.workloads.Room()
	refusals := n.refusals(r, bid.NodeInfo)
	if r.Explain {
		bid.Refusals = refusals
	}
	return bid, r.Explain || len(refusals) == 0
}

// Workloads lists what matches: the namespace in any case, the id exactly or
// the name in any case; "" matches every workload of the namespace.
func (n *node) Workloads(namespace, idOrName string) (nex.NodeWorkloads, bool) {
	var found []nex.WorkloadName
	for _, s := range n.workloads.List() {
		if !strings.EqualFold(s.Spec.Namespace, namespace) ||
			idOrName != "" && s.ID != idOrName && !strings.EqualFold(s.Spec.Name, idOrName) {
			continue
		}
		found = append(found, nex.WorkloadName{ID: s.ID, Namespace: s.Spec.Namespace, Name: s.Spec.Name, Type: s.Spec.Type})
	}
	return nex.NodeWorkloads{
		NodeID: n.identity.id, TargetXkey: n.identity.xkey, Version: n.cfg.Version,
		Tags: n.tags(), Uptime: n.uptime(), RunningMachines: found,
	}, len(found) > 0
}

func (n *node) uptime() string { return nex.FormatUptime(time.Since(n.started)) }

// tags are the node's fixed tags and those of its present state.
func (n *node) tags() map[string]string {
	t := maps.Clone(n.fixedTags)
	if n.lameDuck.Load() {
		t[nex.TagLameDuck] = "true"
	}
	return t
}
