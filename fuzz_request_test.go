package nex_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"nex"
)

func fingerprint(t testing.TB, r nex.DeployRequest) string {
	t.Helper()
	s, err := r.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// seedRequests are the golden requests of a file.
func seedRequests(f *testing.F, name string) {
	for _, c := range vector[[]exchange](f, name) {
		f.Add([]byte(c.Request))
	}
	for _, s := range []string{`null`, `{}`, `[]`, `""`, `1`, `{"workload_jwt":null}`} {
		f.Add([]byte(s))
	}
}

// FuzzFingerprint changes one field of a request: its fingerprint changes if
// and only if what a node makes of it does.
func FuzzFingerprint(f *testing.F) {
	golden := vector[[]exchange](f, "control_deploy")[0].Request
	f.Add([]byte(golden), "argv", []byte(`["a"]`))
	f.Add([]byte(golden), "argv", []byte(`[]`))
	f.Add([]byte(golden), "ARGV", []byte(`["a"]`))
	f.Add([]byte(golden), "location", []byte(`"nats://NEXCLIFILES/echofnj%73"`))
	f.Add([]byte(golden), "workload_jwt", []byte(`"x"`))
	f.Add([]byte(`{"max_concurrency":9007199254740992}`), "max_concurrency", []byte(`9007199254740993`))
	f.Add([]byte(`{"location":"nats://B/\ufffd"}`), "location", []byte(`"nats://B/%ff"`))
	f.Fuzz(func(t *testing.T, data []byte, field string, value []byte) {
		var fields map[string]json.RawMessage
		if json.Unmarshal(data, &fields) != nil || fields == nil || !json.Valid(value) {
			return
		}
		changed := maps.Clone(fields)
		changed[field] = value
		var a, b nex.DeployRequest
		if json.Unmarshal(marshal(t, fields), &a) != nil || json.Unmarshal(marshal(t, changed), &b) != nil {
			return
		}
		a.WorkloadJWT, b.WorkloadJWT = "", ""
		equal := bytes.Equal(marshal(t, a), marshal(t, b))
		if equal != (fingerprint(t, a) == fingerprint(t, b)) {
			t.Errorf("%s\n%s\nequal: %t, their fingerprints: %t", marshal(t, a), marshal(t, b), equal, !equal)
		}
		if equal && (a.Location.Bucket() != b.Location.Bucket() || a.Location.Key() != b.Location.Key()) {
			t.Errorf("%+v and %+v look the same", a.Location, b.Location)
		}
	})
}

func FuzzStopRequest(f *testing.F) {
	seedRequests(f, "control_stop")
	f.Fuzz(func(t *testing.T, data []byte) {
		var r nex.StopRequest
		if json.Unmarshal(data, &r) != nil {
			return
		}
		if again := parse[nex.StopRequest](t, marshal(t, r)); again != r {
			t.Errorf("%+v became %+v", r, again)
		}
		if c, err := nex.DecodeClaims(r.WorkloadJWT); err == nil && c.Issuer == "" {
			t.Errorf("%s is signed by nobody", data)
		}
	})
}

func FuzzLameDuckRequest(f *testing.F) {
	f.Add([]byte(`{"admin_jwt":"a.b.c"}`))
	seedRequests(f, "control_info_lameduck")
	f.Fuzz(func(t *testing.T, data []byte) {
		var r nex.LameDuckRequest
		if json.Unmarshal(data, &r) != nil {
			return
		}
		if again := parse[nex.LameDuckRequest](t, marshal(t, r)); again != r {
			t.Errorf("%+v became %+v", r, again)
		}
		if c, err := nex.DecodeClaims(r.AdminJWT); err == nil && c.Issuer == "" {
			t.Errorf("%s is signed by nobody", data)
		}
	})
}

// FuzzAuction holds any request against any node. A node that is given what
// is asked for lacks no more of it.
func FuzzAuction(f *testing.F) {
	var nodes []json.RawMessage
	for _, c := range vector[[]exchange](f, "control_auction") {
		var e nex.Envelope
		if json.Unmarshal(c.Reply, &e) == nil && len(e.Data) > 2 {
			nodes = append(nodes, e.Data)
		}
	}
	for i, c := range vector[[]exchange](f, "control_auction") {
		f.Add([]byte(c.Request), []byte(nodes[i%len(nodes)]))
	}
	f.Add([]byte(`{"os":"ſ","tags":{"a":"K"},"sandbox":"os"}`), []byte(`{"tags":{"nex.os":"S","a":"k","nex.sandbox":"none"}}`))
	f.Add([]byte(`{"sandboxed":true,"explain":true}`), []byte(`{"tags":{"nex.sandbox":"docker","nex.lameduck":"T"}}`))
	f.Fuzz(func(t *testing.T, request, info []byte) {
		var r nex.AuctionRequest
		var n nex.NodeInfo
		if json.Unmarshal(request, &r) != nil || json.Unmarshal(info, &n) != nil {
			return
		}
		misses := r.Misses(n)
		if most := 4 + len(r.Tags); len(misses) > most {
			t.Errorf("%q: more than %d", misses, most)
		}
		if !slices.Equal(misses, r.Misses(n)) {
			t.Errorf("%q is not all that it says", misses)
		}
		if none := (nex.AuctionRequest{}).Misses(n); (len(none) > 0) != n.LameDuck() {
			t.Errorf("%+v lacks %q of nothing", n, none)
		}
		for _, own := range []string{nex.TagOS, nex.TagArch, nex.TagLameDuck, nex.TagSandbox, nex.TagUnsafe} {
			delete(r.Tags, own)
		}
		n.Tags = map[string]string{nex.TagOS: strings.ToUpper(r.OS), nex.TagArch: r.Arch, nex.TagSandbox: string(r.Settings.Sandbox)}
		maps.Copy(n.Tags, r.Tags)
		r.Sandboxed = nil
		if !strings.EqualFold(r.OS, n.Tags[nex.TagOS]) { // as "ß"
			return
		}
		if misses := r.Misses(n); len(misses) > 0 {
			t.Errorf("%+v has all that is asked for but %q", n.Tags, misses)
		}
	})
}

// FuzzSettings completes any settings, and holds the result against a plain
// wording of the rules.
func FuzzSettings(f *testing.F) {
	f.Add([]byte(`{}`), []byte(`{"function_timeout_ms":4000,"stop_grace_ms":5}`), []byte(`{"function_timeout_ms":600}`), true)
	f.Add([]byte(`{"function_memory_mib":-1}`), []byte(`{}`), []byte(`{}`), true)
	f.Add([]byte(`{"stop_grace_ms":9223372036854775807}`), []byte(`{"broadcast":true}`), []byte(`{"broadcast":false}`), false)
	f.Add([]byte(`{"broadcast":true,"sandbox":"os"}`), []byte(`{}`), []byte(`{"broadcast":false}`), true)
	f.Add([]byte(`{"engine":"quickjs"}`), []byte(`{"engine":"v8"}`), []byte(`{}`), true)
	f.Fuzz(func(t *testing.T, asked, given, most []byte, function bool) {
		var s, defaults, ceilings nex.Settings
		if json.Unmarshal(asked, &s) != nil || json.Unmarshal(given, &defaults) != nil || json.Unmarshal(most, &ceilings) != nil {
			return
		}
		defaults, ceilings = natural(defaults), natural(ceilings)
		typ := nex.Native
		if function {
			typ = nex.V8
		}
		got, err := s.For(typ, defaults, ceilings)
		if err != nil {
			if code := nex.CodeOf(err); code != nex.Invalid && code != nex.Denied || len(err.Error()) > 200 {
				t.Errorf("%s: %v", code, err)
			}
			return
		}
		if want := completed(s, defaults, ceilings, function); !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %+v, %+v: got %+v, want %+v", s, defaults, ceilings, got, want)
		}
		if again, err := got.For(typ, defaults, ceilings); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%+v is no more allowed, or changes: %+v, %v", got, again, err)
		}
	})
}

// natural has no numbers below 0, as no configuration has.
func natural(s nex.Settings) nex.Settings {
	for _, n := range []*int{&s.FunctionTimeoutMS, &s.FunctionMemoryMiB, &s.MaxConcurrency, &s.StopGraceMS} {
		*n = max(*n, 0)
	}
	return s
}

// completed is what settings that are allowed become.
func completed(s, defaults, ceilings nex.Settings, function bool) nex.Settings {
	number := func(n *int, of bool, standard, most, ever int) {
		switch {
		case *n != 0 || of != function:
		case most == 0:
			*n = min(standard, ever)
		case standard == 0:
			*n = most
		default:
			*n = min(standard, most)
		}
	}
	number(&s.FunctionTimeoutMS, true, defaults.FunctionTimeoutMS, ceilings.FunctionTimeoutMS, math.MaxInt32)
	number(&s.FunctionMemoryMiB, true, defaults.FunctionMemoryMiB, ceilings.FunctionMemoryMiB, math.MaxInt32)
	number(&s.MaxConcurrency, true, defaults.MaxConcurrency, ceilings.MaxConcurrency, 1000)
	number(&s.StopGraceMS, false, defaults.StopGraceMS, ceilings.StopGraceMS, math.MaxInt32)
	if may := ceilings.Broadcast == nil || *ceilings.Broadcast; function && s.Broadcast == nil && may {
		s.Broadcast = defaults.Broadcast
	}
	if function && s.Engine == "" {
		s.Engine = defaults.Engine
	}
	return s
}

// FuzzParseLocation: what people write arrives as what they meant.
func FuzzParseLocation(f *testing.F) {
	for _, s := range []string{"nats://BUCKET/key", "nats://B/dir/sub/echo.js", "nats://u:hunter2@[/x", "nats://B/%2e%2e/x?q#f", "nats://B//", "NATS://b/K"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := nex.ParseLocation(s)
		if err != nil {
			if nex.CodeOf(err) != nex.Invalid || len(err.Error()) > 500 {
				t.Errorf("%.100q: %.600v", s, err)
			}
			return
		}
		sent := parse[nex.Location](t, marshal(t, l))
		if l.Bucket() == "" || l.Key() == "" || sent.Bucket() != l.Bucket() || sent.Key() != l.Key() {
			t.Errorf("%q is %q in %q, and as sent %q in %q", s, l.Key(), l.Bucket(), sent.Key(), sent.Bucket())
		}
	})
}
