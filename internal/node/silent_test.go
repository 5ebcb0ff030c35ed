package node_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/nextest"
)

// TestSilentCalleesDelayNobody has 200 functions wait for an answer that never
// comes, while a function of another namespace works on. The latencies that it
// logs are to be read, not passed.
func TestSilentCalleesDelayNobody(t *testing.T) {
	const waiting = 200
	r := hostRig(t)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "page") }))
	t.Cleanup(web.Close)
	other := *r
	other.Client = must(nex.NewClient(r.nc, "other"))(t)
	other.mustDeployJS(t, "works", "works", `const { kv, http } = hostServices;
	(subject, payload, ctx) => {
		kv.set("k", "v");
		const took = (call) => { const from = performance.now(); call(); return performance.now() - from };
		const middle = (call) => Array.from({ length: 50 }, () => took(call)).sort((a, b) => a - b)[25];
		return [middle(() => kv.get("k")), middle(() => http.get(ctx.text()))].map((ms) => Math.round(ms * 1000) + " µs").join(", ");
	}`)
	latency := func(when string) {
		t.Helper()
		m := other.call(t, "works", []byte(web.URL))
		if len(m.Header) > 0 {
			t.Fatalf("%s: %v %s", when, m.Header, m.Data)
		}
		t.Logf("kv.get, http.get %s: %s", when, m.Data)
	}
	latency("before")

	silent := must(r.nc.SubscribeSync("silent"))(t)
	w := r.upload(t, "waits", nex.V8, []byte(`() => hostServices.messaging.request("silent", "", { timeout: 600000 })`))
	w.Settings = nex.Settings{Engine: nex.EngineQuickJS, FunctionTimeoutMS: 600_000}
	replies := make(chan *nats.Msg, waiting)
	inbox := nats.NewInbox()
	if _, err := r.nc.ChanSubscribe(inbox, replies); err != nil {
		t.Fatal(err)
	}
	for i := range waiting {
		w.Name = fmt.Sprintf("waits%d", i)
		w.TriggerSubjects = []string{"waits." + w.Name}
		if _, err := r.deploy(t, w); err != nil {
			t.Fatal(err)
		}
		if err := r.nc.PublishRequest("waits."+w.Name, inbox, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := silent.NextMsg(nextest.Patience); err != nil { // it waits now
			t.Fatalf("%s: %v", w.Name, err)
		}
	}
	latency(fmt.Sprintf("while %d functions wait", waiting))
	select {
	case m := <-replies:
		t.Errorf("somebody was answered: %v %s", m.Header, m.Data)
	default:
	}
}
