package node_test

import (
	"slices"
	"strings"
	"testing"

	"nex"
)

// bids returns what nodes answer to an auction.
func (r *rig) bids(t *testing.T, req nex.AuctionRequest) (bids []nex.Bid) {
	t.Helper()
	for b, err := range r.Auction(t.Context(), req) {
		if err != nil {
			t.Fatal(err)
		}
		bids = append(bids, b)
	}
	return bids
}

// TestAuctionsTellTheTruth: a node bids for what it would take, stays silent
// else, and says why when asked.
func TestAuctionsTellTheTruth(t *testing.T) {
	s := lean(t)
	s.Tags = map[string]string{"site": "Lab"}
	s.WorkloadTypes = []nex.WorkloadType{nex.V8, nex.Native}
	s.Limits.MaxWorkloads, s.Limits.MaxTotalBytes, s.Limits.MaxWorkloadBytes = 2, 1000, 600
	no, yes := false, true
	s.Ceilings.Broadcast = &no
	r := newRig(t, s)
	issuer, _ := r.keys.Issuer.PublicKey()
	v8 := []nex.WorkloadType{nex.V8}
	bigScript := []byte(echo + strings.Repeat(" ", 500))

	for name, c := range map[string]struct {
		req nex.AuctionRequest
		why string // "" for a bid
	}{
		"nothing in particular": {},
		"all it has": {req: nex.AuctionRequest{
			WorkloadTypes: v8, Tags: map[string]string{"site": "lab"}, Sandboxed: &no, Bytes: 600, Issuer: issuer,
			TriggerSubjects: []string{"js.echo"}, Settings: nex.Settings{FunctionTimeoutMS: 5, Sandbox: nex.SandboxNone},
		}},
		"an old name":      {req: nex.AuctionRequest{WorkloadTypes: []nex.WorkloadType{"elf"}}},
		"a type":           {nex.AuctionRequest{WorkloadTypes: []nex.WorkloadType{nex.V8, nex.Wasm}}, "takes no wasm workloads"},
		"a tag":            {nex.AuctionRequest{Tags: map[string]string{"gpu": "true"}}, "lacks tag gpu=true"},
		"another value":    {nex.AuctionRequest{Tags: map[string]string{"site": "home"}}, "lacks tag site=home"},
		"an architecture":  {nex.AuctionRequest{Arch: "pdp11"}, "has architecture "},
		"a system":         {nex.AuctionRequest{OS: "plan9"}, "runs on "},
		"a sandbox":        {nex.AuctionRequest{Sandboxed: &yes}, "has sandbox none"},
		"a better sandbox": {nex.AuctionRequest{Settings: nex.Settings{Sandbox: nex.SandboxOS}}, "has sandbox none, not os"},
		"an artifact":      {nex.AuctionRequest{Bytes: 601}, "has no room for 601 bytes"},
		"a trigger":        {nex.AuctionRequest{WorkloadTypes: v8, TriggerSubjects: []string{"$SYS.x"}}, "refuses it: The trigger subject $SYS.x overlaps"},
		"a setting":        {nex.AuctionRequest{WorkloadTypes: v8, Settings: nex.Settings{FunctionTimeoutMS: 1 << 30}}, "refuses it: function_timeout_ms of"},
		"broadcast":        {nex.AuctionRequest{WorkloadTypes: v8, Settings: nex.Settings{Broadcast: &yes}}, "refuses it: this node takes no functions with broadcast"},
	} {
		if got := len(r.bids(t, c.req)); (got == 1) != (c.why == "") {
			t.Errorf("%s: %d bids", name, got)
		}
		c.req.Explain = true
		answers := r.bids(t, c.req)
		if len(answers) != 1 || answers[0].NodeID != r.node.NodeID {
			t.Fatalf("%s, explained: %+v", name, answers)
		}
		why := answers[0].Refusals
		if (len(why) == 0) != (c.why == "") || len(why) > 0 && !strings.HasPrefix(why[0], c.why) {
			t.Errorf("%s: refused because it %q, want %q", name, why, c.why)
		}
	}

	w := r.upload(t, "big", nex.V8, bigScript)
	w.TriggerSubjects = []string{"t.big"}
	if _, err := r.deploy(t, w); err != nil {
		t.Fatal(err)
	}
	if n := len(r.bids(t, nex.AuctionRequest{Bytes: 599})); n != 0 {
		t.Error("it bids for more bytes than it has left")
	}
	r.mustDeployJS(t, "second", "t.second", echo)
	wantReason(t, r.bids(t, nex.AuctionRequest{Explain: true}), "is full: it runs 2 workloads")
	if _, err := r.LameDuck(t.Context(), r.node.NodeID, nex.LameDuckRequest{}); err != nil {
		t.Fatal(err)
	}
	wantReason(t, r.bids(t, nex.AuctionRequest{Explain: true}), "is in lame duck mode")
	if n := len(r.bids(t, nex.AuctionRequest{})); n != 0 {
		t.Error("a node in lame duck mode bids")
	}
}

func wantReason(t *testing.T, bids []nex.Bid, why string) {
	t.Helper()
	if len(bids) != 1 || !slices.Contains(bids[0].Refusals, why) {
		t.Errorf("%+v, want %q", bids, why)
	}
}

// TestIssuersInAuctions: an allow-list speaks before the deploy does.
func TestIssuersInAuctions(t *testing.T) {
	s := lean(t)
	s.ValidIssuers = []string{"ACFIRY65OQE7DFP5KLNS2PF2LVZMUZYJX4OZIEQ36N2IQANUB5XVYYOU"}
	r := newRig(t, s)
	issuer, _ := r.keys.Issuer.PublicKey()
	for id, want := range map[string]int{"": 1, s.ValidIssuers[0]: 1, issuer: 0} {
		if got := len(r.bids(t, nex.AuctionRequest{Issuer: id})); got != want {
			t.Errorf("issuer %q: %d bids", id, got)
		}
	}
	w := r.function(t, "echo")
	_, err := r.deploy(t, w)
	wantRefused(t, "another issuer", err, nex.Unauthorized, "invalid workload issuer: "+issuer)
}
