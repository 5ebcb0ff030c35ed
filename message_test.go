package nex_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"nex"
)

// objectForm is a location as it travels.
const objectForm = `{"Scheme":"nats","Opaque":"","User":null,"Host":"BUCKET","Path":"/key","Fragment":"","RawQuery":"","RawPath":"","RawFragment":"","ForceQuery":false,"OmitHost":false}`

func TestLocationForms(t *testing.T) {
	for _, in := range []string{
		objectForm, `"nats://BUCKET/key"`, ` "nats://BUCKET/key" `, `{"Host":"BUCKET","Path":"/key","Scheme":"nats"}`,
		`{"host":"BUCKET","path":"key/","scheme":"https","extra":[1,2]}`,
	} {
		l := parse[nex.Location](t, []byte(in))
		if l.Bucket() != "BUCKET" || l.Key() != "key" {
			t.Errorf("%s: bucket %q, key %q", in, l.Bucket(), l.Key())
		}
	}
}

func TestLocationTravelsAsObject(t *testing.T) {
	l, err := nex.ParseLocation("nats://BUCKET/key")
	if err != nil {
		t.Fatal(err)
	}
	wantJSON(t, marshal(t, l), []byte(objectForm))
	wantJSON(t, marshal(t, &l), []byte(objectForm))
	request := parse[map[string]json.RawMessage](t, marshal(t, nex.DeployRequest{Location: l}))
	wantJSON(t, request["location"], []byte(objectForm))
}

func TestParseLocation(t *testing.T) {
	l, err := nex.ParseLocation("nats://B/dir/sub/echo.js")
	if err != nil || l.Bucket() != "B" || l.Key() != "dir/sub/echo.js" {
		t.Errorf("bucket %q, key %q, %v", l.Bucket(), l.Key(), err)
	}
	for _, s := range []string{"", "echo.js", "nats:", "nats://", "nats://B", "nats://B/", "nats:///key", "https://B/key", "nats://" + strings.Repeat("B", 256) + "/key", "nats://B/" + strings.Repeat("k", 1024), "nats://B/%zz", "nats://B/%ff", "nats://%ff/key", "nats://[/key", "NATS\n://B/key"} {
		if _, err := nex.ParseLocation(s); nex.CodeOf(err) != nex.Invalid || len(err.Error()) > 300 {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestLocationRefuses(t *testing.T) {
	for _, in := range []string{`5`, `[]`, `true`, `"nats://[/"`, `{"Host":5}`, `{"Path":{}}`, `{"ForceQuery":"x"}`, `{"Host":"` + strings.Repeat("B", 256) + `"}`} {
		var l nex.Location
		if err := json.Unmarshal([]byte(in), &l); err == nil {
			t.Errorf("%s: %+v", in, l)
		}
	}
}

func FuzzLocation(f *testing.F) {
	for _, s := range []string{objectForm, `"nats://BUCKET/key"`, `null`, `{}`, `{"User":{}}`, `{"User":{"username":"x"}}`, `"nats://u:p@B/%2e%2e/x"`, `"`, `{"Host":5}`, `"\ud800"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var l nex.Location
		if json.Unmarshal(data, &l) != nil {
			return
		}
		again := parse[nex.Location](t, marshal(t, l))
		if again.Bucket() != l.Bucket() || again.Key() != l.Key() {
			t.Errorf("%s: %q %q came back as %q %q", data, l.Bucket(), l.Key(), again.Bucket(), again.Key())
		}
	})
}

// FuzzDeployRequest does with hostile bytes what a node does with a request.
func FuzzDeployRequest(f *testing.F) {
	for _, c := range vector[[]exchange](f, "control_deploy") {
		if len(c.Request) > 0 {
			f.Add([]byte(c.Request))
		}
	}
	f.Add([]byte(`null`))
	f.Add([]byte(`{"location":null,"trigger_connection":{},"retry_count":-1}`))
	node := keyOf(f, vector[keyring](f, "crypto").NodeX.Seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		var r nex.DeployRequest
		if json.Unmarshal(data, &r) != nil {
			return
		}
		_, _ = nex.DecodeClaims(r.WorkloadJWT)
		_, _ = nex.OpenEnvironment(r.Environment, node, r.SenderPublicKey)
		once := marshal(t, r)
		again := parse[nex.DeployRequest](t, once)
		if twice := marshal(t, again); !bytes.Equal(once, twice) {
			t.Errorf("%s\nbecame %s", once, twice)
		}
		if a, b := fingerprint(t, r), fingerprint(t, again); a != b {
			t.Errorf("%s\nhas fingerprint %s, and when it arrives %s", once, a, b)
		}
	})
}

func TestAdditionsStayOutUntilUsed(t *testing.T) {
	plain := string(marshal(t, nex.DeployRequest{}))
	full := string(marshal(t, nex.DeployRequest{Settings: nex.Settings{FunctionTimeoutMS: 5}, SourceName: "echo.js"}))
	for _, field := range []string{`"function_timeout_ms":5`, `"source_name":"echo.js"`} {
		name, _, _ := strings.Cut(field, ":")
		if strings.Contains(plain, name) || !strings.Contains(full, field) {
			t.Errorf("%s in %s and %s", field, plain, full)
		}
	}
}

func TestIsFunction(t *testing.T) {
	for typ, want := range map[nex.WorkloadType]bool{nex.V8: true, nex.Wasm: true, nex.Native: false, "oci": false, "": false} {
		if typ.IsFunction() != want {
			t.Errorf("%q: want %v", typ, want)
		}
	}
}
