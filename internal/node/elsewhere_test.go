package node_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/nextest"
)

// elsewhere is a NATS server that lets in whom an operator's account signed,
// and access for a user and a node's workload to it.
func elsewhere(t *testing.T) (url string, user, workload nex.NATSAccess) {
	t.Helper()
	operator, account := must(nkeys.CreateOperator())(t), must(nkeys.CreateAccount())(t)
	id := must(account.PublicKey())(t)
	resolver := &server.MemAccResolver{}
	if err := resolver.Store(id, must(jwt.NewAccountClaims(id).Encode(operator))(t)); err != nil {
		t.Fatal(err)
	}
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, AccountResolver: resolver,
		TrustedKeys: []string{must(operator.PublicKey())(t)},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(nextest.Patience) {
		t.Fatal("the NATS server did not start")
	}
	access := func() nex.NATSAccess {
		key := must(nkeys.CreateUser())(t)
		return nex.NATSAccess{
			URL: srv.ClientURL(), JWT: must(jwt.NewUserClaims(must(key.PublicKey())(t)).Encode(account))(t),
			Seed: nex.Secret(must(key.Seed())(t)),
		}
	}
	return srv.ClientURL(), access(), access()
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestTriggersElsewhere: a function is triggered where its request says, and
// what that takes does not leave the node.
func TestTriggersElsewhere(t *testing.T) {
	url, user, access := elsewhere(t)
	r := newRig(t, settings(t))
	w := r.upload(t, "elsewhere", nex.V8, []byte(`(s, p, ctx) => JSON.stringify(ctx) + JSON.stringify(ctx.env)`))
	w.TriggerSubjects, w.TriggerConnection = []string{"away.>"}, &access
	deployed, err := r.deploy(t, w)
	if err != nil {
		t.Fatal(err)
	}

	nc, err := nats.Connect(url, nats.UserJWTAndSeed(user.JWT, string(user.Seed)))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	reply, err := nc.Request("away.echo", []byte("hi"), nextest.Patience)
	if err != nil || !strings.Contains(string(reply.Data), "away.echo") {
		t.Fatalf("answered %v, %v", reply, err)
	}
	if _, err := r.nc.Request("away.echo", nil, nextest.Patience); err != nats.ErrNoResponders {
		t.Errorf("on the node's own NATS: %v", err)
	}
	info, err := r.Info(t.Context(), r.node.NodeID)
	if err != nil {
		t.Fatal(err)
	}
	text := must(json.Marshal(info))(t)
	for _, secret := range []string{string(access.Seed), access.JWT} {
		if strings.Contains(string(text)+string(reply.Data), secret) {
			t.Errorf("told: %s %s", text, reply.Data)
		}
	}
	if err := r.stop(t, w.Name, deployed.ID); err != nil {
		t.Error(err)
	}
	if _, err := nc.Request("away.echo", nil, nextest.Patience); err != nats.ErrNoResponders {
		t.Errorf("after the stop: %v", err)
	}
}

func TestTriggersNowhere(t *testing.T) {
	_, _, access := elsewhere(t)
	r := newRig(t, settings(t))
	w := r.upload(t, "nowhere", nex.V8, []byte(echo))
	w.TriggerSubjects = []string{"away"}
	changed := func(change func(*nex.NATSAccess)) *nex.NATSAccess {
		a := access
		change(&a)
		return &a
	}
	for name, a := range map[string]*nex.NATSAccess{
		"nobody there":   changed(func(a *nex.NATSAccess) { a.URL = "nats://127.0.0.1:1" }),
		"not let in":     changed(func(a *nex.NATSAccess) { a.JWT, a.Seed = "", "" }),
		"no server":      changed(func(a *nex.NATSAccess) { a.URL = "" }),
		"another scheme": changed(func(a *nex.NATSAccess) { a.URL = "http://127.0.0.1" }),
		"half a user":    changed(func(a *nex.NATSAccess) { a.Seed = "" }),
		"no seed":        changed(func(a *nex.NATSAccess) { a.Seed = "SUsecret" }),
	} {
		w.TriggerConnection = a
		_, err := r.deploy(t, w)
		if err == nil || strings.Contains(err.Error(), "SUsecret") {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %v", name, err)
	}
	if n, err := r.Ping(t.Context(), r.node.NodeID); err != nil || n.RunningMachines != 0 {
		t.Errorf("%+v, %v", n, err)
	}
}

// TestHostServicesElsewhere: messages go where the triggers come from, and
// buckets are where the request says, which may be yet another NATS.
func TestHostServicesElsewhere(t *testing.T) {
	url, user, access := elsewhere(t)
	data := nextest.Server(t)
	r := newRig(t, settings(t))
	w := r.upload(t, "split", nex.V8, []byte(`(s, payload) => { hostServices.kv.set("k", payload); return hostServices.messaging.request("away.question", payload) }`))
	w.TriggerSubjects, w.TriggerConnection = []string{"away.split"}, &access
	w.HostServices = &nex.NATSAccess{URL: data.ClientURL()}
	if _, err := r.deploy(t, w); err != nil {
		t.Fatal(err)
	}
	nc, err := nats.Connect(url, nats.UserJWTAndSeed(user.JWT, string(user.Seed)))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Subscribe("away.question", func(m *nats.Msg) { _ = m.Respond(append([]byte("away: "), m.Data...)) }); err != nil {
		t.Fatal(err)
	}
	reply, err := nc.Request("away.split", []byte("hi"), nextest.Patience)
	if err != nil || string(reply.Data) != "away: hi" {
		t.Fatalf("answered %v, %v", reply, err)
	}
	js := must(jetstream.New(nextest.Connect(t, data)))(t)
	bucket := must(js.KeyValue(t.Context(), "hs_default_split_kv"))(t)
	if value := must(bucket.Get(t.Context(), "k"))(t); string(value.Value()) != "hi" {
		t.Errorf("%s", value.Value())
	}

	w.HostServices = &nex.NATSAccess{URL: "http://127.0.0.1"}
	if _, err := r.deploy(t, w); nex.CodeOf(err) != nex.Invalid || !strings.Contains(err.Error(), "host_services") {
		t.Errorf("no NATS: %v", err)
	}
}

// TestServersThatWorkloadsMayName are those of the configuration.
func TestServersThatWorkloadsMayName(t *testing.T) {
	url, _, access := elsewhere(t)
	s := settings(t)
	s.WorkloadServers = []string{strings.TrimPrefix(url, "nats://"), "*.example.org:4222"}
	r := newRig(t, s)
	w := r.upload(t, "named", nex.V8, []byte(echo))
	w.TriggerSubjects, w.TriggerConnection = []string{"named"}, &access
	if _, err := r.deploy(t, w); err != nil {
		t.Error(err)
	}
	w.TriggerConnection = nil
	for _, server := range []string{"nats://127.0.0.1:1", url + ",nats://evil.test", "nats://example.org", "tls://a.example.org:443"} {
		w.HostServices = &nex.NATSAccess{URL: server}
		if _, err := r.deploy(t, w); nex.CodeOf(err) != nex.Denied || !strings.Contains(err.Error(), "host_services") {
			t.Errorf("%s: %v", server, err)
		}
	}
	w.HostServices = &nex.NATSAccess{URL: "nats://A.example.org"}
	if _, err := r.deploy(t, w); err != nil {
		t.Errorf("by a pattern: %v", err)
	}
}
