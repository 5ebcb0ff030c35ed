package node_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/nextest"
)

// exchange is one case of the control_*.json files.
type exchange struct {
	Name     string
	Node     map[string]any // configuration
	Subject  string
	Request  json.RawMessage
	Raw      *string           `json:"request_raw"`
	Requests []json.RawMessage // several, each of which has the reply
	Artifact []byte            `json:"artifact_base64"`
	Reply    json.RawMessage
	Cases    map[string]string // of the uptime format
}

// goldenID is the workload that the files speak of.
const goldenID = "cq1a2b3c4d5e6f7g8h90"

// goldenFiles are the files of exchanges, with the node they are with unless a
// case says otherwise, and what happens on it before each case.
var goldenFiles = []struct {
	name, subject, node string
	before              func(*player, *testing.T)
}{
	{"control_ping_wping", "", `{"tags": {"node_name": "quiet-river", "simple": "true"}}`, (*player).runFunction},
	{"control_auction", "$NEX.AUCTION", `{"tags": {"node_name": "quiet-river", "simple": "true"}, "workload_types": ["native"]}`, (*player).runService},
	{"control_info_lameduck", "", `{"tags": {"node_name": "quiet-river", "simple": "true"}}`, (*player).runFunction},
	{"control_deploy", "", `{}`, nil},
	{"control_stop", "", `{}`, (*player).runFunction},
}

// goldenBefore is what else happens before a case.
var goldenBefore = map[string]func(*player, *testing.T){
	"control_info_lameduck/lameduck again": (*player).enterLameDuck,
	"control_deploy/lame duck":             (*player).enterLameDuck,
	"control_deploy/full":                  (*player).runFunction,
	"control_stop/again": func(p *player, t *testing.T) {
		if reply := p.ask(t, p.word(p.cases[0].Subject), p.body(p.cases[0])); !bytes.Contains(reply, []byte(`"stopped":true`)) {
			t.Fatalf("the first stop: %s", reply)
		}
	},
}

// goldenOurs are the cases to which our nodes give another reply, each with
// the reason.
var goldenOurs = map[string]struct{ why, node, subject, reply string }{
	"control_deploy/overrides": {
		why:   "the connection on file is no connection, and our nodes say so rather than running a function that nothing triggers",
		reply: `{"type":"io.nats.nex.v1.run_response","data":"","error":"Invalid deploy request: trigger_connection: nats_user_seed must be the seed of a NATS user"}`,
	},
	"control_info_lameduck/lameduck failure": {
		why:     "our nodes fail at nothing there, but may refuse; the reason follows the text",
		node:    `{"admin_issuers": ["ACATS5YOVB6ROX2WUNKGNQ2MP3GMXDMKSG2O4N5CLX3A6W4PZGZZIL2R"]}`,
		subject: "$NEX.LAMEDUCK.NDWUSKGGFDI4FRXK5EBTRECZSVQSSWJHHJOGH6JWG3AUMFFMQ435CDIX",
		reply:   `{"type":"io.nats.nex.v1.lameduck_response","data":"","error":"Failed to enter lame duck mode: this node takes the command from its administrators alone (admin_issuers): sign it with --issuer"}`,
	},
}

// goldenNever are the cases that no request brings about.
var goldenNever = map[string]string{
	"control_info_lameduck/info failure shape": "a request whose subject names no namespace reaches no node",
}

// TestGoldenExchanges plays every exchange with Nex 0.2.7 that is on file, each
// with a real node of its own.
func TestGoldenExchanges(t *testing.T) {
	srv := nextest.Server(t)
	for _, f := range goldenFiles {
		cases := golden[[]exchange](t, f.name)
		for _, c := range cases {
			name := f.name + "/" + c.Name
			t.Run(name, func(t *testing.T) {
				if why, never := goldenNever[name]; never {
					t.Skip(why)
				}
				if c.Cases != nil {
					wantUptimes(t, c.Cases)
					return
				}
				node := f.node
				if ours, differs := goldenOurs[name]; differs {
					t.Log("another reply: " + ours.why)
					c.Reply = json.RawMessage(ours.reply)
					if ours.subject != "" {
						c.Subject, node = ours.subject, ours.node
					}
				}
				if c.Subject == "" {
					c.Subject = f.subject
				}
				play := func(t *testing.T, c exchange) {
					p := newPlayer(t, srv, node, c)
					p.cases = cases
					for _, before := range []func(*player, *testing.T){f.before, goldenBefore[name]} {
						if before != nil {
							before(p, t)
						}
					}
					p.play(t, c)
					p.end()
				}
				if c.Requests == nil {
					play(t, c)
				}
				for i, request := range c.Requests {
					c.Request = request
					t.Run(strconv.Itoa(i), func(t *testing.T) { play(t, c) })
				}
			})
		}
	}
}

// player plays exchanges with a node.
type player struct {
	*wired
	cases []exchange // of the file
	id    string     // of the workload that runs
}

// newPlayer runs the node of a case: that of its file, changed as it says.
func newPlayer(t *testing.T, srv *server.Server, node string, c exchange) *player {
	t.Helper()
	var file map[string]any
	if err := json.Unmarshal([]byte(node), &file); err != nil {
		t.Fatal(err)
	}
	maps.Copy(file, c.Node)
	text, err := json.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return &player{wired: newWired(t, srv, string(text))}
}

// runFunction deploys what the files take for granted.
func (p *player) runFunction(t *testing.T) {
	t.Helper()
	first := golden[[]exchange](t, "control_deploy")[0]
	var r map[string]any
	if err := json.Unmarshal(first.Request, &r); err != nil {
		t.Fatal(err)
	}
	r["workload_jwt"] = p.keys.JWT["deploy_ok"]
	body, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	p.provide(t, body, nil)
	p.id = p.deploy(t, body)
}

func (p *player) runService(t *testing.T) {
	t.Helper()
	second := golden[[]exchange](t, "control_deploy")[1]
	p.provide(t, second.Request, nil)
	p.id = p.deploy(t, second.Request)
}

func (p *player) enterLameDuck(t *testing.T) {
	t.Helper()
	p.ask(t, "$NEX.LAMEDUCK."+p.node(), nil)
}

// provide stores what a deploy request asks for: the golden script, or
// anything of another type, unless the case brings it along.
func (p *player) provide(t *testing.T, request, artifact []byte) {
	t.Helper()
	var r nex.DeployRequest
	if json.Unmarshal(request, &r) != nil || r.Location.Bucket() != bucket || r.Location.Key() == "zzz" {
		return // there is nothing there in the case
	}
	content := map[nex.WorkloadType]string{nex.V8: p.keys.Artifact.Text, nex.Native: forever, nex.Wasm: tinyWasm}[r.Type]
	if artifact != nil {
		content = string(artifact)
	}
	p.upload(t, r.Location.Key(), content)
}

// word puts the words of here into a golden text: the id that the workload
// really has, and this host's architecture and system.
func (p *player) word(text string) string {
	id := p.id
	if id == "" {
		id = goldenID
	}
	return strings.NewReplacer(goldenID, id, `"amd64"`, strconv.Quote(runtime.GOARCH), `"AMD64"`, strconv.Quote(strings.ToUpper(runtime.GOARCH)),
		`"arm64"`, `"another"`, `"linux"`, strconv.Quote(runtime.GOOS), `"Linux"`, strconv.Quote(strings.ToUpper(runtime.GOOS))).Replace(text)
}

func (p *player) body(c exchange) []byte {
	var text string
	switch {
	case c.Raw != nil:
		return []byte(*c.Raw)
	case json.Unmarshal(c.Request, &text) == nil: // a string, empty or not
		return []byte(text)
	}
	return []byte(p.word(string(c.Request)))
}

// play sends what a case says and compares the reply, or the lack of one.
func (p *player) play(t *testing.T, c exchange) {
	t.Helper()
	body := p.body(c)
	p.provide(t, body, c.Artifact)
	subject := p.word(c.Subject)
	var words string
	switch {
	case c.Reply == nil || string(c.Reply) == "null":
		p.wantSilence(t, subject, body)
	case json.Unmarshal(c.Reply, &words) == nil:
		wantErrorUnlessComplete(t, body, p.ask(t, subject, body))
	default:
		reply := p.ask(t, subject, body)
		if p.id != "" {
			reply = bytes.ReplaceAll(reply, []byte(p.id), []byte(goldenID))
		}
		wantGolden(t, reply, c.Reply)
	}
}

// wantSilence checks that nobody answers: a later request that must be
// answered, on the same subscription of the node, overtakes none before it.
func (p *player) wantSilence(t *testing.T, subject string, body []byte) {
	t.Helper()
	inbox, err := p.Conn.SubscribeSync(p.Conn.NewInbox())
	if err == nil {
		err = p.Conn.PublishRequest(subject, inbox.Subject, body)
	}
	if err != nil {
		t.Fatal(err)
	}
	after := "$NEX.PING"
	for _, s := range []string{"$NEX.AUCTION", "$NEX.WPING.default"} {
		if strings.HasPrefix(subject, s[:len("$NEX.A")]) {
			after = s
		}
	}
	p.ask(t, after, nil)
	if m, err := inbox.NextMsg(time.Nanosecond); err == nil && len(m.Data) > 0 {
		t.Errorf("a reply: %s", m.Data)
	} else if err != nil && err != nats.ErrTimeout && err != nats.ErrNoResponders {
		t.Fatal(err)
	}
}

// wantErrorUnlessComplete is for requests that lack something.
func wantErrorUnlessComplete(t *testing.T, request, reply []byte) {
	t.Helper()
	var r map[string]any
	var e struct {
		Type, Error, Code string
		Data              any
	}
	if json.Unmarshal(request, &r) != nil || json.Unmarshal(reply, &e) != nil {
		t.Fatalf("%s: %s", request, reply)
	}
	complete := true
	for _, field := range []string{"environment", "workload_jwt", "sender_public_key", "location"} {
		complete = complete && r[field] != nil
	}
	if e.Type != "io.nats.nex.v1.run_response" || complete != (e.Error == "") || !complete && (e.Data != "" || e.Code == "") {
		t.Errorf("got %s", reply)
	}
}

func wantUptimes(t *testing.T, cases map[string]string) {
	t.Helper()
	for seconds, want := range cases {
		n, err := strconv.Atoi(seconds)
		if got := nex.FormatUptime(time.Duration(n) * time.Second); err != nil || got != want {
			t.Errorf("%s s: got %s, want %s", seconds, got, want)
		}
	}
}

// wantGolden compares a complete reply with a golden one. Failures have a code
// besides, which Nex 0.2.7 does not send.
func wantGolden(t *testing.T, got, want []byte) {
	t.Helper()
	var g, w map[string]any
	if json.Unmarshal(got, &g) != nil || json.Unmarshal(want, &w) != nil {
		t.Fatalf("got %s, want %s", got, want)
	}
	if _, failed := w["error"]; failed {
		if code, _ := g["code"].(string); !nex.Code(code).Known() {
			t.Errorf("code %v", g["code"])
		}
		delete(g, "code")
	}
	if !reflect.DeepEqual(byNature("", g, w), any(w)) {
		t.Errorf("\ngot  %s\nwant %s", got, want)
	}
}

// Forms of what differs by nature.
var (
	workloadID = regexp.MustCompile(`^[0-9a-v]{20}$`)
	elapsed    = regexp.MustCompile(`^((\d+y)?(\d+d)?(\d+h)?(\d+m)?\d+s|\d+ms|\d+ns)$`)
)

// byNature puts golden values into what was got wherever both differ by nature
// and what was got has the right form. It changes nothing else.
func byNature(key string, got, want any) any {
	text, _ := got.(string)
	number, _ := got.(float64)
	switch key {
	case "id": // of a workload just deployed: ids are random
		if want == "<xid>" && workloadID.MatchString(text) {
			return want
		}
	case "uptime", "runtime": // time passes
		if elapsed.MatchString(text) {
			return want
		}
	case "version", "nexus": // what the test calls them; the golden node is of 0.2.7
		if text == "test" {
			return want
		}
	case "total", "free", "available": // this host's memory
		if number > 0 {
			return want
		}
	case "nex.arch", "nex.os", "nex.cpucount": // this host's
		if text == fmt.Sprint(map[string]any{"nex.arch": runtime.GOARCH, "nex.os": runtime.GOOS, "nex.cpucount": runtime.NumCPU()}[key]) {
			return want
		}
	case "tags": // the golden node has a sandbox and 0.2.7 knows no kinds of it; nodes of this test have none
		tags, _ := got.(map[string]any)
		if tags["nex.limits"] != "" { // 0.2.7 limits nothing
			delete(tags, "nex.limits")
		}
		if tags["nex.sandbox"] == "none" && tags["nex.unsafe"] == "true" {
			delete(tags, "nex.sandbox")
			delete(tags, "nex.unsafe")
		}
	}
	switch got := got.(type) {
	case map[string]any:
		w, _ := want.(map[string]any)
		for k := range got {
			got[k] = byNature(k, got[k], w[k])
		}
	case []any:
		w, _ := want.([]any)
		for i := range min(len(got), len(w)) {
			got[i] = byNature(key, got[i], w[i])
		}
	}
	return got
}
