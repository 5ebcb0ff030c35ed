package node_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/config"
	"nex/internal/nextest"
)

// hostRig is a node whose workloads may reach this machine by HTTP, and store
// objects of 16 MiB together.
func hostRig(t *testing.T) *rig {
	t.Helper()
	s := settings(t)
	s.Host.HTTP.Allow, s.Host.ObjectStore.MaxBytes = []string{"127.0.0.0/8"}, 16<<20
	return newRig(t, s)
}

// TestGuideExamples runs what users have written for host services.
func TestGuideExamples(t *testing.T) {
	r := hostRig(t)
	for subject, replies := range map[string][]string{"hello.world.request": {"resp: "}, "hello.world.request.many": {"1: ", "2: "}} {
		if _, err := r.nc.Subscribe(subject, func(m *nats.Msg) {
			for _, reply := range replies {
				_ = m.Respond(append([]byte(reply), m.Data...))
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	published, err := r.nc.SubscribeSync("hello.world")
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.WriteHeader(map[string]int{"GET": 200, "HEAD": 200, "POST": 201, "PUT": 204, "PATCH": 204, "DELETE": 204}[q.Method])
		_, _ = io.WriteString(w, q.Method+" "+q.URL.String())
	}))
	t.Cleanup(web.Close)

	for name, tc := range map[string]struct{ script, payload, want string }{
		"kv": {`(subject, payload) => {
			this.hostServices.kv.set('hello', payload);
			this.hostServices.kv.delete('hello');
			this.hostServices.kv.set('hello2', payload);
			return { keys: this.hostServices.kv.keys(), hello2: String.fromCharCode(...this.hostServices.kv.get('hello2')) };
		}`, "hello!", `{"keys":["hello2"],"hello2":"hello!"}`},
		"objectstore": {`(subject, payload) => {
			this.hostServices.objectStore.put('hello', payload);
			this.hostServices.objectStore.delete('hello');
			this.hostServices.objectStore.put('hello2', payload);
			return {
				list: this.hostServices.objectStore.list().map((o) => [o.name, o.size, o.bucket]),
				hello2: String.fromCharCode(...this.hostServices.objectStore.get('hello2')),
			};
		}`, "hello!", `{"list":[["hello2",6,"hs_default_objectstore_obj"]],"hello2":"hello!"}`},
		"messaging": {`(subject, payload) => {
			this.hostServices.messaging.publish('hello.world', payload);
			req = this.hostServices

			.messaging.request('hello.world.request', payload);
			reqMany = this.hostServices.messaging.requestMany('hello.world.request.many', payload);
			return { 'hello.world.request': String.fromCharCode(...req), many: reqMany.map((r) => String.fromCharCode(...r)) };
		}`, "asdfghjkl;'", `{"hello.world.request":"resp: asdfghjkl;'","many":["1: asdfghjkl;'","2: asdfghjkl;'"]}`},
		"http": {`(subject, payload) => {
			const url = String.fromCharCode(...payload);
			get = this.hostServices.http.get(url + '/a?b=c');
			post = this.hostServices.http.post(url, payload);
			put = this.hostServices.http.put(url, payload);
			patch = this.hostServices.http.patch(url, payload);
			del = this.hostServices.http.del(url);
			head = this.hostServices.http.head(url);
			return [get.status, get.response, post.status, put.status, patch.status, del.status, head.status, this.hostServices.http.delete(url).status];
		}`, web.URL, `[200,"GET /a?b=c",201,204,204,204,200,204]`},
		"fetch": {`async (subject, payload, ctx) => { const r = await fetch(ctx.text() + "/x"); return [r.status, await r.text()] }`, web.URL, `[200,"GET /x"]`},
	} {
		t.Run(name, func(t *testing.T) {
			r.mustDeployJS(t, name, "js."+name, tc.script)
			if m := r.call(t, "js."+name, []byte(tc.payload)); string(m.Data) != tc.want {
				t.Errorf("%s, want %s", m.Data, tc.want)
			}
		})
	}
	if m, err := published.NextMsg(nextest.Patience); err != nil || string(m.Data) != "asdfghjkl;'" {
		t.Errorf("published: %v, %v", m, err)
	}
}

// TestHostRefusals has a function try what no workload may.
func TestHostRefusals(t *testing.T) {
	r := newRig(t, settings(t))
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "reached") }))
	t.Cleanup(away.Close)
	id := r.mustDeployJS(t, "daring", "daring", `(subject, payload, ctx) => {
		try { return new Function("return " + ctx.text())() ?? "done" } catch (e) { return String(e.code) }
	}`)
	for name, code := range map[string]string{
		"lame duck": `hostServices.messaging.publish("$NEX.LAMEDUCK.` + r.node.NodeID + `", "{}")`,
		"jetstream": `hostServices.messaging.request("$JS.API.STREAM.NAMES", "")`,
		"system":    `hostServices.messaging.request("$SYS.REQ.SERVER.PING", "")`,
		"buckets":   `hostServices.messaging.publish("$KV.hs_other_one_kv.key", "x")`,
		"inboxes":   `hostServices.messaging.publish("_INBOX.x", "x")`,
		"metadata":  `hostServices.http.get("http://169.254.169.254/latest/meta-data/")`,
		"NATS":      `hostServices.http.get("http://127.0.0.1:4222")`,
		"this host": `hostServices.http.get("` + away.URL + `")`,
		"by name":   `hostServices.http.get("` + strings.Replace(away.URL, "127.0.0.1", "localhost", 1) + `")`,
		"as IPv6":   `hostServices.http.get("` + strings.Replace(away.URL, "127.0.0.1", "[::ffff:127.0.0.1]", 1) + `")`,
	} {
		if m := r.call(t, "daring", []byte(code)); string(m.Data) != "denied" {
			t.Errorf("%s: %s, want denied", name, m.Data)
		}
	}
	e := r.await(t, nex.HostCallRefused{})
	var said nex.HostCallRefused
	if err := json.Unmarshal(e.Data(), &said); err != nil || said.Name != "daring" || said.Code != nex.Denied || !strings.HasSuffix(e.Source(), "-"+id) || said.Count < 1 {
		t.Errorf("event %v: %+v, %v", e, said, err)
	}
	info, err := r.Info(t.Context(), r.node.NodeID)
	if err != nil || len(info.Machines) != 1 || info.Machines[0].Workload.HostCallsRefused != 10 {
		t.Errorf("%+v, %v", info.Machines, err)
	}
	if n, err := r.Ping(t.Context(), r.node.NodeID); err != nil {
		t.Errorf("afterwards: %+v, %v", n, err)
	}
}

// TestHostServicesKeepTenantsApart has two pairs of names that are the same when
// joined.
func TestHostServicesKeepTenantsApart(t *testing.T) {
	r := newRig(t, settings(t))
	const script = `(subject, payload, ctx) => { const before = hostServices.kv.keys(); hostServices.kv.set(ctx.text(), payload); return before }`
	for _, who := range [][2]string{{"a_b", "c"}, {"a", "b_c"}} {
		client, err := nex.NewClient(r.nc, who[0])
		if err != nil {
			t.Fatal(err)
		}
		tenant := *r
		tenant.Client = client
		tenant.mustDeployJS(t, who[1], "apart."+who[1], script)
		if m := tenant.call(t, "apart."+who[1], []byte(who[0])); string(m.Data) != "[]" {
			t.Errorf("%s/%s sees %s", who[0], who[1], m.Data)
		}
		if m := tenant.call(t, "apart."+who[1], []byte("x")); string(m.Data) != `["`+who[0]+`"]` {
			t.Errorf("%s/%s sees %s of its own", who[0], who[1], m.Data)
		}
	}
}

// TestHostServicesThatAreOff has them refused by their name, with the text of
// Nex 0.2.7.
func TestHostServicesThatAreOff(t *testing.T) {
	s, _, err := config.Parse([]byte(`{"no_sandbox": true, "host_services": {"services": {"http": {"enabled": false}}}}`), "config.json")
	if err != nil {
		t.Fatal(err)
	}
	base := settings(t)
	base.Host = s.Host
	r := newRig(t, base)
	r.mustDeployJS(t, "off", "off", `() => { try { hostServices.http.get("http://example.org") } catch (e) { return [e.code, e.message] } }`)
	if m := r.call(t, "off", nil); string(m.Data) != `["unsupported","No such host service: http"]` {
		t.Errorf("%s", m.Data)
	}
}

// TestHostCallsEndWithTheCall has a function wait for nobody, past its time.
func TestHostCallsEndWithTheCall(t *testing.T) {
	r := newRig(t, settings(t))
	silent, err := r.nc.SubscribeSync("silent")
	if err != nil {
		t.Fatal(err)
	}
	w := r.upload(t, "waits", nex.V8, []byte(`() => hostServices.messaging.request("silent", "x", { timeout: 60000 })`))
	w.TriggerSubjects, w.Settings.FunctionTimeoutMS = []string{"waits"}, 200
	if _, err := r.deploy(t, w); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if m := r.call(t, "waits", nil); m.Header.Get("Nats-Service-Error-Code") != "504" {
		t.Errorf("%v %s", m.Header, m.Data)
	}
	if took := time.Since(begin); took > nextest.Patience {
		t.Errorf("it took %s", took)
	}
	if _, err := silent.NextMsg(nextest.Patience); err != nil {
		t.Error(err)
	}
}

// TestBucketsAreNotOverheard has a function listen to what the node writes to
// the buckets of another.
func TestBucketsAreNotOverheard(t *testing.T) {
	r := newRig(t, settings(t))
	r.mustDeployJS(t, "keeps", "keeps", `(subject, payload) => hostServices.kv.set("secret", payload)`)
	w := r.upload(t, "listens", nex.V8, []byte(`(subject, payload) => payload`))
	for _, subject := range []string{"$KV.hs_default_keeps_kv.>", "$KV.>", "$O.hs_default_keeps_obj.C.>"} {
		w.TriggerSubjects = []string{subject}
		if _, err := r.deploy(t, w); nex.CodeOf(err) != nex.Denied {
			t.Errorf("%s: %v, want denied", subject, err)
		}
	}
}
