package node_test

import (
	"reflect"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/nextest"
)

// TestHeadersGoInAndOut: a function reads the headers of a message, and gives
// its reply others.
func TestHeadersGoInAndOut(t *testing.T) {
	r := newRig(t, settings(t))
	r.mustDeployJS(t, "headers", "js.headers", `(subject, payload, ctx) =>
		ctx.respond(payload, { headers: { "X-Got": ctx.headers["X-Sent"] ?? [], "X-One": "1", ...ctx.json() } })`)
	send := func(payload string) *nats.Msg {
		m := nats.NewMsg("js.headers")
		m.Header["X-Sent"] = []string{"a", "b"}
		m.Data = []byte(payload)
		reply, err := r.nc.RequestMsg(m, nextest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	reply := send(`{"low-case": "ü"}`)
	want := nats.Header{"X-Got": {"a", "b"}, "X-One": {"1"}, "low-case": {"ü"}}
	if string(reply.Data) != `{"low-case": "ü"}` || !reflect.DeepEqual(reply.Header, want) {
		t.Errorf("answered %q with %v, want headers %v", reply.Data, reply.Header, want)
	}
	reply = send(`{"A": "b\nc: d"}`)
	if code := reply.Header.Get("Nats-Service-Error-Code"); code != strconv.Itoa(nex.BadReply.Status()) {
		t.Errorf("a header with a line break: answered %q with %v", reply.Data, reply.Header)
	}
}
