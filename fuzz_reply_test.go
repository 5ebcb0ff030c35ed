package nex

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"testing"
)

// FuzzReply decodes a reply as each method of a [Client] does: it is an error
// of the node, or one of form, or a value that stays what it is.
func FuzzReply(f *testing.F) {
	for _, name := range []string{"ping_wping", "auction", "info_lameduck", "deploy", "stop"} {
		data, err := os.ReadFile("testdata/wire/control_" + name + ".json")
		if err != nil {
			f.Fatal(err)
		}
		var cases []struct{ Reply json.RawMessage }
		if err := json.Unmarshal(data, &cases); err != nil {
			f.Fatal(err)
		}
		for _, c := range cases {
			f.Add([]byte(c.Reply))
		}
	}
	for _, s := range []string{``, `null`, `{}`, `[]`, `{"data":null}`, `{"data":"","error":"x","code":"y"}`, `{"error":{},"data":{}}`, `{"data":{"tags":null,"running_machines":[{}]}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		understood[NodeInfo](t, data)
		understood[NodeWorkloads](t, data)
		understood[Bid](t, data)
		understood[InfoReply](t, data)
		understood[DeployReply](t, data)
		understood[StopReply](t, data)
		understood[LameDuckReply](t, data)
	})
}

func understood[Reply any](t *testing.T, data []byte) {
	t.Helper()
	reply, err := decode[Reply](data)
	var e Envelope
	if json.Unmarshal(data, &e) != nil {
		e = Envelope{}
	}
	var refused *Error
	if told := errors.As(err, &refused); told != (e.Error != "") {
		t.Fatalf("%T from %q: %v", reply, data, err)
	}
	if refused != nil && (refused.Message != e.Error || refused.Code == "" || e.Code != "" && refused.Code != e.Code) {
		t.Errorf("%T from %q: %s: %v", reply, data, refused.Code, refused)
	}
	if err != nil {
		return
	}
	once, err := json.Marshal(reply)
	if err != nil {
		t.Fatalf("%T from %q: %v", reply, data, err)
	}
	again, err := decode[Reply]([]byte(`{"data":` + string(once) + `}`))
	twice, bad := json.Marshal(again)
	if err != nil || bad != nil || !bytes.Equal(once, twice) {
		t.Errorf("%s became %s, %v, %v", once, twice, err, bad)
	}
}
