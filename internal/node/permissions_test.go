package node_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nex"
	"nex/internal/nextest"
)

// deed is something that one may or may not do with a subject.
type deed struct{ verb, subject, queue string }

func ask(subject string) deed          { return deed{verb: "ask", subject: subject} }
func publish(subject string) deed      { return deed{verb: "publish", subject: subject} }
func subscribe(subject string) deed    { return deed{verb: "subscribe", subject: subject} }
func share(subject, queue string) deed { return deed{"subscribe", subject, queue} }

// outcome is what becomes of a deed.
type outcome string

const (
	done    outcome = "done"    // what was asked was answered
	refused outcome = "refused" // a permission violation
	unheard outcome = "unheard" // it stayed in the account
)

func (d deed) do(t *testing.T, nc *nats.Conn, refusals <-chan error) outcome {
	t.Helper()
	var err error
	var answer *nats.Subscription
	switch {
	case d.verb == "publish":
		err = nc.Publish(d.subject, nil)
	case d.verb == "ask":
		inbox := nc.NewRespInbox()
		answer, err = nc.SubscribeSync(inbox)
		err = errors.Join(err, nc.PublishRequest(d.subject, inbox, nil))
	case d.queue != "":
		_, err = nc.QueueSubscribeSync(d.subject, d.queue)
	default:
		_, err = nc.SubscribeSync(d.subject)
	}
	if err := errors.Join(err, nc.Flush()); err != nil {
		t.Fatal(err)
	}
	if nc.LastError() != nil { // it comes before the flush returns
		if err := nextest.Await(t, refusals, "a refusal"); !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(err.Error(), fmt.Sprintf("%q", d.subject)) {
			t.Errorf("%v: %v", d, err)
		}
		return refused
	}
	if answer != nil {
		m, err := answer.NextMsg(nextest.Patience)
		if errors.Is(err, nats.ErrNoResponders) {
			return unheard
		}
		if err != nil || m == nil {
			t.Fatalf("%v: %v", d, err)
		}
	}
	return done
}

// permissions are what users may do, and what they may not. A node N listens,
// and functions on all subjects below default and payments.
var permissions = []struct {
	user, what string
	deed       deed
	want       outcome
}{
	{"developer", "look for nodes", ask("$NEX.PING"), done},
	{"developer", "look for one node", ask("$NEX.PING.N"), done},
	{"developer", "ask who would run something", ask("$NEX.AUCTION"), done},
	{"developer", "look into its namespace", ask("$NEX.INFO.default.N"), done},
	{"developer", "look for its workloads", ask("$NEX.WPING.default"), done},
	{"developer", "look for one of its workloads", ask("$NEX.WPING.default.echo"), done},
	{"developer", "deploy into its namespace", ask("$NEX.DEPLOY.default.N"), done},
	{"developer", "stop in its namespace", ask("$NEX.STOP.default.N"), done},
	{"developer", "call its functions", ask("default.echo"), done},
	{"developer", "look at the bucket", ask("$JS.API.STREAM.INFO.OBJ_NEXCLIFILES"), done},
	{"developer", "read its logs", subscribe("$NEX.logs.default.*.*.*"), done},
	{"developer", "read its events and those of nodes", subscribe("$NEX.events.*.*"), done},

	{"developer", "look into another namespace", ask("$NEX.INFO.payments.N"), unheard},
	{"developer", "look for others' workloads", ask("$NEX.WPING.payments"), unheard},
	{"developer", "deploy into another namespace", ask("$NEX.DEPLOY.payments.N"), unheard},
	{"developer", "stop in another namespace", ask("$NEX.STOP.payments.N"), unheard},
	{"developer", "call others' functions", ask("payments.charge"), unheard},
	{"developer", "send a node into lame duck mode", ask("$NEX.LAMEDUCK.N"), unheard},
	{"developer", "forge an event", publish("$NEX.events.default.workload_deployed"), refused},
	{"developer", "forge an event of a node", publish("$NEX.events.system.node_stopped"), refused},
	{"developer", "forge a log record", publish("$NEX.logs.default.N.echo.id"), refused},
	{"developer", "forge a reply", publish("_INBOX.operator.x"), refused},
	{"developer", "read deploy requests", subscribe("$NEX.DEPLOY.>"), refused},
	{"developer", "read deploy requests of its namespace", subscribe("$NEX.DEPLOY.default.*"), refused},
	{"developer", "answer as a node", subscribe("$NEX.PING"), refused},
	{"developer", "read all that is Nex's", subscribe("$NEX.>"), refused},
	{"developer", "read all there is", subscribe(">"), refused},
	{"developer", "read calls of functions", subscribe("default.>"), refused},
	{"developer", "answer instead of a function", share("default.echo", "nex.default.echo"), refused},
	{"developer", "ask how much JetStream holds", ask("$JS.API.INFO"), done},
	{"developer", "make a stream", ask("$JS.API.STREAM.CREATE.MINE"), unheard},
	{"developer", "make the bucket otherwise", ask("$JS.API.STREAM.CREATE.OBJ_NEXCLIFILES"), unheard},
	{"developer", "change the bucket", ask("$JS.API.STREAM.UPDATE.OBJ_NEXCLIFILES"), unheard},
	{"developer", "delete the bucket", ask("$JS.API.STREAM.DELETE.OBJ_NEXCLIFILES"), unheard},
	{"developer", "list streams", ask("$JS.API.STREAM.LIST"), unheard},
	{"developer", "look at another stream", ask("$JS.API.STREAM.INFO.ORDERS"), unheard},
	{"developer", "empty another stream", ask("$JS.API.STREAM.PURGE.ORDERS"), unheard},
	{"developer", "upload elsewhere", ask("$O.RELEASES.M.x"), unheard},
	{"developer", "write a key-value bucket", ask("$KV.CONFIG.key"), unheard},
	{"developer", "read what others uploaded", ask("$JS.API.DIRECT.GET.OBJ_NEXCLIFILES.$O.NEXCLIFILES.C.x"), unheard},
	{"developer", "read any message of the bucket", ask("$JS.API.DIRECT.GET.OBJ_NEXCLIFILES"), unheard},
	{"developer", "have any message of the bucket", ask("$JS.API.STREAM.MSG.GET.OBJ_NEXCLIFILES"), unheard},
	{"developer", "have the bucket sent somewhere", ask("$JS.API.CONSUMER.CREATE.OBJ_NEXCLIFILES.c.$O.NEXCLIFILES.C.x"), unheard},

	{"operator", "look for nodes", ask("$NEX.PING"), done},
	{"operator", "look into any namespace", ask("$NEX.INFO.payments.N"), done},
	{"operator", "look for any workloads", ask("$NEX.WPING.payments"), done},
	{"operator", "send a node into lame duck mode", ask("$NEX.LAMEDUCK.N"), done},
	{"operator", "read all events", subscribe("$NEX.events.>"), done},
	{"operator", "read all logs", subscribe("$NEX.logs.>"), done},
	{"operator", "look at the bucket", ask("$JS.API.STREAM.INFO.OBJ_NEXCLIFILES"), done},

	{"operator", "deploy", publish("$NEX.DEPLOY.default.N"), refused},
	{"operator", "stop", publish("$NEX.STOP.default.N"), refused},
	{"operator", "call functions", publish("default.echo"), refused},
	{"operator", "upload", publish("$O.NEXCLIFILES.M.x"), refused},
	{"operator", "make another stream", publish("$JS.API.STREAM.CREATE.MINE"), refused},
	{"operator", "change the bucket", publish("$JS.API.STREAM.UPDATE.OBJ_NEXCLIFILES"), refused},
	{"operator", "delete the bucket", publish("$JS.API.STREAM.DELETE.OBJ_NEXCLIFILES"), refused},
	{"operator", "read uploads", publish("$JS.API.CONSUMER.CREATE.OBJ_NEXCLIFILES.c.$O.NEXCLIFILES.C.x"), refused},
	{"operator", "forge an event", publish("$NEX.events.system.node_stopped"), refused},
	{"operator", "forge a reply", publish("_INBOX.node.x"), refused},
	{"operator", "read deploy requests", subscribe("$NEX.DEPLOY.>"), refused},
	{"operator", "read calls of functions", subscribe("default.>"), refused},
	{"operator", "read all replies", subscribe("_INBOX.>"), refused},
	{"operator", "read artifacts on their way to nodes", subscribe("_INBOX.node.>"), refused},
	{"operator", "read replies to developers", subscribe("_R_.>"), refused},

	{"node", "take requests", subscribe("$NEX.DEPLOY.*.N"), done},
	{"node", "answer calls of a namespace's functions", share("default.echo", "nex.default.echo"), done},
	{"node", "answer calls of a function with broadcast", share("default.echo", "nex.default.echo.id"), done},
	{"node", "answer calls on wildcards", share("default.>", "nex.default.echo"), done},
	{"node", "publish events", publish("$NEX.events.default.workload_deployed"), done},
	{"node", "publish logs", publish("$NEX.logs.default.N.echo.id"), done},
	{"node", "publish its own log", publish("$NEX.logs.system.N.stdout"), done},
	{"node", "reply to the operator", publish("_INBOX.operator.x"), done},

	{"node", "ask other nodes", publish("$NEX.PING"), refused},
	{"node", "deploy on other nodes", publish("$NEX.DEPLOY.default.N"), refused},
	{"node", "stop on other nodes", publish("$NEX.STOP.default.N"), refused},
	{"node", "send other nodes into lame duck mode", publish("$NEX.LAMEDUCK.N"), refused},
	{"node", "call functions", publish("default.echo"), refused},
	{"node", "read calls beside the functions", subscribe("default.>"), refused},
	{"node", "let a namespace hear the calls of another", share("default.echo", "nex.payments.echo"), refused},
	{"node", "answer calls of a namespace it does not serve", share("payments.charge", "nex.payments.charge"), refused},
	{"node", "read what other nodes report", subscribe("$NEX.events.>"), refused},
	{"node", "read what other workloads print", subscribe("$NEX.logs.>"), refused},
	{"node", "read the operator's replies", subscribe("_INBOX.operator.>"), refused},
	{"node", "read replies to developers", subscribe("_R_.>"), refused},
	{"node", "read all there is", subscribe(">"), refused},
	{"node", "plant an artifact", publish("$O.NEXCLIFILES.M.x"), refused},
	{"node", "make a stream", publish("$JS.API.STREAM.CREATE.MINE"), refused},
	{"node", "empty the bucket", publish("$JS.API.STREAM.PURGE.OBJ_NEXCLIFILES"), refused},
	{"node", "delete the bucket", publish("$JS.API.STREAM.DELETE.OBJ_NEXCLIFILES"), refused},
	{"node", "read another bucket", publish("$JS.API.STREAM.INFO.OBJ_SECRETS"), refused},
}

func TestPermissions(t *testing.T) {
	g := newGuarded(t, template)
	if _, err := nats.Connect(g.ClientURL()); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("without a user: %v", err)
	}
	g.makeBucket(t)
	g.standIn(t)
	for _, tc := range permissions {
		nc, refusals := g.connect(t, tc.user)
		if got := tc.deed.do(t, nc, refusals); got != tc.want {
			t.Errorf("%s, to %s: %s %q is %s, not %s", tc.user, tc.what, tc.deed.verb, tc.deed.subject, got, tc.want)
		}
		nc.Close()
	}
}

// TestAllNodesAreHeard asks what more than one node answers.
func TestAllNodesAreHeard(t *testing.T) {
	g := newGuarded(t, template)
	g.standIn(t)
	g.standIn(t)
	nc, _ := g.connect(t, "developer")
	for _, subject := range []string{"$NEX.PING", "$NEX.AUCTION", "$NEX.WPING.default", "$NEX.WPING.default.echo"} {
		inbox := nc.NewRespInbox()
		answers := make(chan *nats.Msg, 10)
		_, err := nc.ChanSubscribe(inbox, answers)
		if err := errors.Join(err, nc.PublishRequest(subject, inbox, nil)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if m := nextest.Await(t, answers, "both nodes on "+subject); string(m.Data) != "yes" {
				t.Errorf("%s: %q", subject, m.Data)
			}
		}
	}
}

// TestEveryRoleCanWork does what the roles are for. Nothing of it may be
// refused by the NATS server, to the node neither.
func TestEveryRoleCanWork(t *testing.T) {
	g := newGuarded(t, template)
	r := g.rig(t)
	operator, _ := g.connect(t, "operator")
	events, logs := make(chan *nats.Msg, 10_000), make(chan *nats.Msg, 10_000)
	for subject, ch := range map[string]chan *nats.Msg{"$NEX.events.>": events, "$NEX.logs.>": logs} {
		if _, err := operator.ChanSubscribe(subject, ch); err != nil {
			t.Fatal(err)
		}
	}
	own := make(chan *nats.Msg, 10_000)
	if _, err := r.nc.ChanSubscribe("$NEX.logs.default.*.*.*", own); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(operator.Flush(), r.nc.Flush()); err != nil {
		t.Fatal(err)
	}

	found := 0
	for n, err := range r.Auction(t.Context(), nex.AuctionRequest{WorkloadTypes: []nex.WorkloadType{nex.V8}}) {
		if err != nil || n.NodeID != r.node.NodeID {
			t.Errorf("auction: %+v, %v", n, err)
		}
		found++
	}
	if found != 1 {
		t.Errorf("%d nodes bid", found)
	}
	r.put(t, "echo", nex.V8, "not this one") // replaced, so that its pieces are purged
	echo := r.put(t, "echo", nex.V8, `(s, p) => { console.log("hello"); return p }`)
	echo.TriggerSubjects = []string{"default.echo"}
	function, err := r.deploy(t, echo)
	if err != nil {
		t.Fatal(err)
	}
	// Long enough that the server wants to hear of the node how it goes on.
	service, err := r.deploy(t, r.put(t, "svc", nex.Native, "#!/bin/sh\necho hello\nexec sleep 1000\n#"+strings.Repeat("x", 16<<20)))
	if err != nil {
		t.Fatal(err)
	}
	if m := r.call(t, "default.echo", []byte("heya")); string(m.Data) != "heya" {
		t.Errorf("the function answered %q, %v", m.Data, m.Header)
	}
	for who, ch := range map[string]chan *nats.Msg{"developer": own, "operator": logs} {
		wanted := map[string]bool{"echo": true, "svc": true}
		for len(wanted) > 0 {
			m := nextest.Await(t, ch, "a log record of a workload for the "+who)
			if l, err := nex.ParseLog(m.Subject, m.Data); err == nil && strings.HasPrefix(l.Text, "hello") {
				delete(wanted, l.Workload)
			}
		}
	}
	if info, err := r.Info(t.Context(), r.node.NodeID); err != nil || len(info.Machines) != 2 {
		t.Errorf("the developer sees %+v, %v", info.Machines, err)
	}
	g.operate(t, operator, r)
	if err := errors.Join(r.stop(t, "echo", function.ID), r.stop(t, "svc", service.ID)); err != nil {
		t.Error(err)
	}
	r.end()
	for last := ""; !strings.HasSuffix(last, ".node_stopped"); {
		last = nextest.Await(t, events, "the last event").Subject
	}
	g.stop()
	close(g.violations)
	for v := range g.violations {
		t.Error(v)
	}
}

// operate does what an operator does; the node is a lame duck then.
func (g *guarded) operate(t *testing.T, nc *nats.Conn, r *rig) {
	t.Helper()
	client, err := nex.NewClient(nc, "default")
	if err != nil {
		t.Fatal(err)
	}
	nodes := 0
	for n, err := range client.Nodes(t.Context(), nex.NodeFilter{}) {
		if err != nil || n.NodeID != r.node.NodeID {
			t.Errorf("the operator sees %+v, %v", n, err)
		}
		nodes++
	}
	if nodes != 1 {
		t.Errorf("the operator sees %d nodes", nodes)
	}
	if info, err := client.Info(t.Context(), r.node.NodeID); err != nil || len(info.Machines) != 2 {
		t.Errorf("the operator sees %+v, %v", info.Machines, err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateObjectStore(t.Context(), jetstream.ObjectStoreConfig{Bucket: "NEXCLIFILES"}); !errors.Is(err, jetstream.ErrBucketExists) {
		t.Errorf("the bucket is made again, otherwise: %v", err)
	}
	if reply, err := client.LameDuck(t.Context(), r.node.NodeID, nex.LameDuckRequest{}); err != nil || !reply.Success {
		t.Errorf("lame duck: %+v, %v", reply, err)
	}
}

// TestAnswersStayInTheAccount asks for answers on subjects that are not the
// developer's. JetStream answers wherever it is told to, with what one stored.
func TestAnswersStayInTheAccount(t *testing.T) {
	g := newGuarded(t, template)
	g.makeBucket(t)
	g.standIn(t)
	witness, _ := g.connect(t, "node")
	heard := make(chan *nats.Msg, 100)
	for _, subject := range []string{"$NEX.DEPLOY.*.*", "$NEX.STOP.*.*", "$NEX.LAMEDUCK.*"} {
		if _, err := witness.ChanSubscribe(subject, heard); err != nil {
			t.Fatal(err)
		}
	}
	if err := witness.Flush(); err != nil {
		t.Fatal(err)
	}
	nc, _ := g.connect(t, "developer")
	for _, answerer := range []string{
		"$O.NEXCLIFILES.M.x", // stores the body
		"$JS.API.DIRECT.GET.OBJ_NEXCLIFILES.$O.NEXCLIFILES.M.x",
		"$JS.API.STREAM.INFO.OBJ_NEXCLIFILES",
		"$JS.API.INFO",
		"default.function",
	} {
		body := []byte("{}")
		for _, subject := range []string{"$NEX.DEPLOY.payments.N", "$NEX.STOP.payments.N", "$NEX.LAMEDUCK.N"} {
			if err := nc.PublishRequest(answerer, subject, body); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := nc.Request(answerer, body, nextest.Patience); err != nil { // the others are answered then
			t.Fatal(err)
		}
	}
	operator, _ := g.connect(t, "operator")
	if err := operator.Publish("$NEX.LAMEDUCK.end", nil); err != nil {
		t.Fatal(err)
	}
	if m := nextest.Await(t, heard, "the operator's request"); m.Subject != "$NEX.LAMEDUCK.end" {
		t.Errorf("an answer went to %s", m.Subject)
	}
	// Who is in the account of the nodes is stopped by their permissions.
	if err := operator.PublishRequest("$NEX.PING", "$NEX.DEPLOY.payments.N", nil); err != nil {
		t.Fatal(err)
	}
	if v := nextest.Await(t, g.violations, "the node's refusal"); !strings.Contains(v, "Publish Violation") || !strings.Contains(v, "$NEX.DEPLOY.payments.N") {
		t.Error(v)
	}
}

// TestSecondNamespace follows the template's words on how to add one.
func TestSecondNamespace(t *testing.T) {
	g := newGuarded(t, withPayments(t))
	developer := g.rig(t)
	payer := g.client(t, "payer", "payments")
	payer.node = developer.node
	heard := make(chan *nats.Msg, 100)
	for _, subject := range []string{"$NEX.events.>", "$NEX.logs.>"} {
		if _, err := payer.nc.ChanSubscribe(subject, heard); err != nil {
			t.Fatal(err)
		}
	}
	if err := payer.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*rig{developer, payer} {
		subject := r.Namespace() + ".echo"
		w := r.put(t, r.Namespace(), nex.V8, `() => "`+subject+`"`)
		w.TriggerSubjects = []string{subject}
		if _, err := r.deploy(t, w); err != nil {
			t.Fatal(err)
		}
		if m := r.call(t, subject, nil); string(m.Data) != subject {
			t.Errorf("%s answered %q", subject, m.Data)
		}
	}
	first := nextest.Await(t, heard, "the payer's deploy")
	for strings.HasPrefix(first.Subject, "$NEX.events.system.") {
		first = nextest.Await(t, heard, "the payer's deploy")
	}
	if first.Subject != "$NEX.events.payments.workload_deployed" {
		t.Errorf("the payer hears %s", first.Subject)
	}
	for r, subject := range map[*rig]string{developer: "payments.echo", payer: "default.echo"} {
		r.wantDeaf(t, subject)
	}
}

// wantDeaf checks that a developer can neither hear nor make calls that are
// another namespace's.
func (r *rig) wantDeaf(t *testing.T, subject string) {
	t.Helper()
	w := r.put(t, "ear", nex.V8, echo)
	w.TriggerSubjects = []string{subject}
	if _, err := r.deploy(t, w); nex.CodeOf(err) != nex.Denied {
		t.Errorf("%s listens on %s: %v", r.Namespace(), subject, err)
	}
	if _, err := r.nc.Request(subject, nil, nextest.Patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("%s calls %s: %v", r.Namespace(), subject, err)
	}
	if info, err := r.Info(t.Context(), r.node.NodeID); err != nil || len(info.Machines) != 1 {
		t.Errorf("%s sees %+v, %v", r.Namespace(), info.Machines, err)
	}
}
