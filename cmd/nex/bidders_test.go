package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/nextest"
)

func bid(id string, room int, refusals ...string) verdict {
	return verdict{nex.Bid{NodeInfo: nex.NodeInfo{NodeID: id, Tags: map[string]string{nex.TagName: id}}, Room: room, Refusals: refusals}}
}

func TestChoose(t *testing.T) {
	on := func(ids ...string) (old []running) {
		for _, id := range ids {
			old = append(old, running{"w", nex.NodeInfo{NodeID: id}})
		}
		return old
	}
	const full, lame, tag = "is full: it runs 2 workloads", "is in lame duck mode", "lacks tag gpu=true"
	for name, c := range map[string]struct {
		verdicts []verdict
		old      []running
		copies   int
		service  bool
		nodes    string
		overlap  bool
		err      string
	}{
		"one that takes it":                             {verdicts: []verdict{bid("A", 0)}, copies: 5, nodes: "A", overlap: true},
		"a service never overlaps":                      {verdicts: []verdict{bid("A", 0)}, old: on("A"), copies: 1, service: true, nodes: "A"},
		"takers alone":                                  {verdicts: []verdict{bid("A", 1), bid("B", 0, lame), bid("C", 2)}, copies: 3, nodes: "A C", overlap: true},
		"too many copies":                               {verdicts: []verdict{bid("A", 1), bid("C", 2)}, copies: 4, err: "there is room for 3 of 4 copies on 2 of 2 nodes"},
		"a full node makes room for itself":             {verdicts: []verdict{bid("A", 0, full)}, old: on("A"), copies: 1, nodes: "A"},
		"full of others":                                {verdicts: []verdict{bid("A", 0, full), bid("B", 0, tag)}, old: on("B"), copies: 1, err: "0 of 2 nodes: 1 is full: it runs 2 workloads, 1 lacks tag gpu=true"},
		"a lame one keeps what it has":                  {verdicts: []verdict{bid("A", 0, lame)}, old: on("A"), copies: 1, err: "0 of 1 nodes: 1 is in lame duck mode"},
		"full and lame":                                 {verdicts: []verdict{bid("A", 0, lame, full)}, old: on("A"), copies: 1, err: "1 is in lame duck mode"},
		"room for some beside, for all in their places": {verdicts: []verdict{bid("A", 1)}, old: on("A", "A"), copies: 3, nodes: "A"},
		"several": {verdicts: []verdict{bid("A", 0, tag), bid("B", 0, tag), bid("C", 0, lame)}, copies: 1,
			err: "unable to locate candidate node - 0 of 3 nodes: 2 lack tag gpu=true, 1 is in lame duck mode"},
	} {
		f := source{typ: nex.V8}
		if c.service {
			f.typ = nex.Native
		}
		nodes, overlap, err := choose(c.verdicts, c.old, c.copies, f)
		var ids []string
		for _, n := range nodes {
			ids = append(ids, n.NodeID)
		}
		slices.Sort(ids)
		if got := strings.Join(ids, " "); got != c.nodes || overlap != c.overlap || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %s, %t, %v", name, got, overlap, err)
		}
	}
}

// TestSurveyOfOldNodes: what nodes of Nex 0.2.7 do not know is told from their
// tags, whether they bid or not.
func TestSurveyOfOldNodes(t *testing.T) {
	nc := nextest.Connect(t, nextest.Server(t))
	answer := func(subject, reply string) {
		if _, err := nc.Subscribe(subject, func(m *nats.Msg) { _ = m.Respond([]byte(reply)) }); err != nil {
			t.Fatal(err)
		}
	}
	node := func(id, tags string) string { return `{"data":{"node_id":"` + id + `","tags":{` + tags + `}}}` }
	plain, lame, unsafe := node("PLAIN", ""), node("LAME", `"nex.lameduck":"true"`), node("UNSAFE", `"nex.unsafe":"true"`)
	silent := node("SILENT", "")
	for _, n := range []string{plain, lame, unsafe} {
		answer(nex.PingSubject, n)
		answer(nex.AuctionSubject, n)
	}
	answer(nex.PingSubject, silent)
	client, err := nex.NewClient(nc, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	verdicts, err := survey(ctx, client, nex.AuctionRequest{Settings: nex.Settings{Sandbox: nex.SandboxMicroVM}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, v := range verdicts {
		got[v.NodeID] = strings.Join(v.Refusals, "; ")
	}
	for id, why := range map[string]string{
		"PLAIN": "", "LAME": "is in lame duck mode", "UNSAFE": "has sandbox none, not microvm", "SILENT": "does not say why it would not",
	} {
		if said, there := got[id]; !there || said != why {
			t.Errorf("%s: %q, want %q", id, said, why)
		}
	}
}
