package node_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"nex"
)

// arsenal is what shots are made of.
type arsenal struct {
	plain    [][]byte // small bodies
	large    [][]byte // some kB
	noise    []byte   // 1 MiB
	spoilt   [][]byte // requests that are good but for one thing
	auctions []auction
	headers  []nats.Header
}

// auction is a request to all nodes, and whether ours bids.
type auction struct {
	body    string
	answers bounds
}

func newArsenal(t *testing.T, r *rig, random *rand.Rand) (a arsenal) {
	t.Helper()
	a.noise = senseless()["noise"]
	for _, s := range []string{
		``, `null`, `{}`, `[]`, `""`, `1`, `true`, `{}{}`, `{"`, "\xff\xfe", `{"type":"v8"}`, `{"workload_jwt":".."}`, `{"admin_jwt":"a.b.c"}`,
	} {
		a.plain = append(a.plain, []byte(s))
	}
	for _, s := range []string{
		strings.Repeat("[", 20_000), strings.Repeat(`{"location":`, 5000), strings.Repeat(" ", 50_000), `{"workload_id":"` + strings.Repeat("x", 50_000) + `"}`,
		`{"trigger_subjects":[` + strings.Repeat(`"a",`, 1000) + `"a"],"workload_types":["v8"]}`, `{"tags":{` + strings.Repeat(`"a":"b",`, 1000) + `"c":""}}`,
	} {
		a.large = append(a.large, []byte(s))
	}
	for _, file := range []string{"ping_wping", "auction", "info_lameduck", "deploy", "stop"} {
		for _, c := range golden[[]struct{ Request json.RawMessage }](t, "control_"+file) {
			a.plain = append(a.plain, c.Request)
		}
	}
	w := r.upload(t, "victim", nex.V8, []byte(echo))
	w.TriggerSubjects, w.Description, w.Argv, w.Settings.MaxConcurrency = []string{"t.victim"}, "d", []string{"x"}, 3
	w.Location.Path = "/missing" // what is spoilt and yet good is not to run
	for i := range 150 {
		m := []messages{ours, theirs}[i%2]
		w.Name = fmt.Sprintf("victim%d", i) // or the claims of one second are equal
		deploy, stop := m.deploy(t, r, w), m.stop(t, r, "steady", r.node.NodeID)
		for range 10 {
			a.spoilt = append(a.spoilt, spoil(t, random, deploy), spoil(t, random, stop))
		}
	}
	a.auctions = []auction{
		{"", once}, {"{}", once}, {"null", once}, {`{"arch":5}`, once}, {`{"bytes":1,"workload_types":["v8","elf"]}`, once},
		{`{"os":"plan9"}`, never}, {`{"workload_types":["oci"]}`, never}, {`{"workload_types":["oci"],"explain":true}`, once},
		{`{"tags":{"node_name":"nobody"}}`, never}, {`{"sandboxed":true}`, never}, {`{"workload_types":["v8"],"function_timeout_ms":-1}`, never},
		{`{"workload_types":["v8"],"trigger_subjects":["$SYS.x"]}`, never}, {`{"workload_types":["v8"],"trigger_subjects":["t.x"]}`, once},
	}
	many, wide := nats.Header{}, nats.Header{"X": []string{strings.Repeat("x", 60_000)}}
	for i := range 200 {
		many.Add(fmt.Sprintf("Header-%d", i), strings.Repeat("y", 50))
	}
	a.headers = []nats.Header{many, wide, {"Nats-Service-Error": []string{"no"}, "Status": []string{"503"}}}
	return a
}

// gunner connects one of those that shoot.
func (h *hammer) gunner(t *testing.T, i uint64) *gunner {
	t.Helper()
	nc, err := nats.Connect(h.url)
	if err != nil {
		t.Fatal(err)
	}
	return &gunner{
		hammer: h, t: t, nc: nc, random: rand.New(rand.NewPCG(h.seed, i)), inbox: nc.NewInbox(),
		window: make(chan struct{}, 100),
	}
}

// next makes a shot.
func (g *gunner) next() shot {
	s := g.aim()
	if g.random.IntN(200) == 0 && len(s.body) < len(g.arsenal.noise) {
		s.header = g.arsenal.headers[g.random.IntN(len(g.arsenal.headers))]
	}
	s.mute = !s.nobody && g.random.IntN(50) == 0
	return s
}

// aim chooses a subject, and the body where the answer depends on it.
func (g *gunner) aim() shot {
	id, other := g.node.NodeID, "NCXXPXMQ4DEADNODEDEADNODEDEADNODEDEADNODEDEADNODEDEADNOD"
	namespace := pick(g.random, "default", "default", "other", "system", "Default", strings.Repeat("n", 400), "%s")
	wping := nex.WorkloadPingSubject
	switch n := g.random.IntN(100); {
	case n < 7:
		return shot{subject: nex.DeploySubject(namespace, id), body: g.body(), answers: once}
	case n < 16:
		return shot{subject: nex.StopSubject(namespace, id), body: g.body(), answers: once}
	case n < 20:
		return shot{subject: nex.LameDuckSubject(id), body: g.body(), answers: once}
	case n < 22:
		return shot{subject: nex.AuctionSubject, body: g.body(), answers: perhaps}
	case n < 36:
		a := g.arsenal.auctions[g.random.IntN(len(g.arsenal.auctions))]
		return shot{subject: nex.AuctionSubject, body: []byte(a.body), answers: a.answers}
	case n < 38:
		return shot{subject: nex.InfoSubject(namespace, id), body: g.plain(), answers: once}
	case n < 66:
		return shot{subject: pick(g.random, nex.PingSubject, nex.NodePingSubject(id)), body: g.plain(), answers: once}
	case n < 76:
		return shot{subject: wping + pick(g.random, ".default", ".DEFAULT", ".default.steady", ".default."+g.steady), body: g.plain(), answers: once}
	case n < 81:
		return shot{subject: wping + pick(g.random, ".nowhere", ".default.nobody", ".default.steady.more", ".system"), body: g.plain(), answers: never}
	case n < 86:
		return shot{subject: wping + ".default.client1", body: g.plain(), answers: perhaps}
	}
	return shot{nobody: true, subject: pick(g.random,
		nex.DeploySubject("default", other), nex.StopSubject("default", other), nex.InfoSubject("default", other), nex.LameDuckSubject(other),
		nex.NodePingSubject(other), "$NEX.WPING", "$NEX.RUN.default."+id, "$NEX.DEPLOY."+id, "$NEX.DEPLOY.a.b."+id, "$NEX.LAMEDUCK", "$NEX",
	)}
}

func pick(random *rand.Rand, of ...string) string { return of[random.IntN(len(of))] }

func (g *gunner) plain() []byte { return g.arsenal.plain[g.random.IntN(len(g.arsenal.plain))] }

// body chooses what is said.
func (g *gunner) body() []byte {
	switch n := g.random.IntN(10_000); {
	case n < 5:
		return g.arsenal.noise
	case n < 60:
		return g.arsenal.large[g.random.IntN(len(g.arsenal.large))]
	case n < 3000:
		return g.plain()
	case n < 5000:
		if seen := g.captured.any(g.random); seen != nil {
			return g.forged(seen)
		}
	}
	return g.arsenal.spoilt[g.random.IntN(len(g.arsenal.spoilt))]
}

// forged is a request that was captured, as it was or with another text of the
// same signature.
func (g *gunner) forged(seen []byte) []byte {
	if g.random.IntN(2) == 0 {
		return seen
	}
	forged := rewritten(g.t, seen)
	return forged[g.random.IntN(len(forged))]
}

// spoil makes a good request with one thing wrong.
func spoil(t *testing.T, random *rand.Rand, good []byte) []byte {
	fields := fieldsOf(t, good)
	names := slices.Sorted(maps.Keys(fields))
	field := names[random.IntN(len(names))]
	switch random.IntN(5) {
	case 0:
		delete(fields, field)
	case 1: // as it is: what it asks for is not there
	case 2: // a little off
		text := slices.Clone(fields[field])
		text[random.IntN(len(text))] = byte(random.IntN(256))
		if json.Valid(text) {
			fields[field] = text
		}
	default:
		fields[field] = json.RawMessage(pick(random,
			`null`, `""`, `0`, `-1`, `1e400`, `1.5`, `true`, `[]`, `{}`, `[null]`, `["a","a"]`, `"a\u0000\r\nb"`, `"\ud800"`, `{"Host":{}}`,
			`"nats://[`+strings.Repeat("x", 2000)+`"`, `"`+strings.Repeat("x", 1000)+`"`, strings.Repeat("[", 100)+strings.Repeat("]", 100),
		))
	}
	return encoded(t, fields, nil)
}
