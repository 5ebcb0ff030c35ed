package js_test

import (
	"reflect"
	"strings"
	"testing"

	"nex"
	"nex/internal/runtime"
	"nex/internal/runtime/js"
)

func TestRespond(t *testing.T) {
	type header = map[string][]string
	tests := []struct {
		name, code, payload string
		header              header
	}{
		{"headers", `(s, p, ctx) => ctx.respond(p, {headers: {"X-A": "1", b: ["x", "", "y"], n: 7, t: true}})`,
			"pay", header{"X-A": {"1"}, "b": {"x", "", "y"}, "n": {"7"}, "t": {"true"}}},
		{"async", `async (s, p, {respond}) => { await 0; return respond({a: 1}, {headers: {A: "é"}}) }`, `{"a":1}`, header{"A": {"é"}}},
		{"pairs", `(s, p, ctx) => ctx.respond("x", {headers: new Map([["a", "1"], ["__proto__", "2"]])})`, "x", header{"a": {"1"}, "__proto__": {"2"}}},
		{"prototype as name", `(s, p, ctx) => ctx.respond("x", {headers: {["__proto__"]: "1", constructor: "2"}})`, "x",
			header{"__proto__": {"1"}, "constructor": {"2"}}},
		{"incoming", `(s, p, ctx) => ctx.respond("x", {headers: ctx.headers})`, "x", header{"In": {"1", "2"}}},
		{"buffer", `(s, p, ctx) => ctx.respond(p.buffer, {headers: {a: "b"}})`, "pay", header{"a": {"b"}}},
		{"nothing but headers", `(s, p, ctx) => ctx.respond(null, {headers: {a: "b"}})`, "", header{"a": {"b"}}},
		{"no options", `(s, p, ctx) => ctx.respond([1])`, "[1]", nil},
		{"no headers", `(s, p, ctx) => ctx.respond(undefined, {headers: null})`, "", nil},
		{"no values", `(s, p, ctx) => ctx.respond("x", {headers: {a: []}})`, "x", header{}},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				f := load(t, e, tt.code)
				trigger := runtime.Trigger{Subject: "s", Header: header{"In": {"1", "2"}}, Payload: []byte("pay")}
				reply, err := f.Invoke(t.Context(), trigger)
				if err != nil || string(reply.Payload) != tt.payload || !reflect.DeepEqual(reply.Header, tt.header) {
					t.Errorf("reply %q with %v, %v; want %q with %v", reply.Payload, reply.Header, err, tt.payload, tt.header)
				}
			})
		}
	})
}

func TestBadRespond(t *testing.T) {
	tests := []struct{ name, value, want string }{
		{"name with a colon", `"x", {headers: {"a:b": "1"}}`, `'a:b' is no name of a header`},
		{"name with space", `"x", {headers: {"a b": "1"}}`, `is no name`},
		{"no name", `"x", {headers: {"": "1"}}`, `'' is no name`},
		{"name beyond ASCII", `"x", {headers: {"ü": "1"}}`, `is no name`},
		{"line break", `"x", {headers: {a: "1\r\nb: 2"}}`, `the header a has a line break`},
		{"space", `"x", {headers: {a: " 1"}}`, `space around`},
		{"object", `"x", {headers: {a: {}}}`, `the header a is an object, not a string`},
		{"undefined", `"x", {headers: {a: undefined}}`, `the header a is undefined`},
		{"nested array", `"x", {headers: {a: [["b"]]}}`, `the header a is an array`},
		{"text", `"x", {headers: "a: b"}`, `its headers are a string`},
		{"pairs of nothing", `"x", {headers: [1]}`, `TypeError: `},
		{"bad value", `10n, {headers: {a: "b"}}`, `BigInt`},
		{"function", `() => 1`, `it is a function`},
		{"promise", `Promise.resolve(1), {headers: {a: "b"}}`, `it is a promise`},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				f := load(t, e, `(s, p, ctx) => s === "bad" ? ctx.respond(`+tt.value+`) : s`)
				_, err := f.call("bad", "p")
				wantCode(t, err, nex.BadReply)
				if err != nil && !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %q does not say %q", err, tt.want)
				}
				reply, err := f.Invoke(t.Context(), runtime.Trigger{Subject: "fine"})
				if err != nil || string(reply.Payload) != "fine" || reply.Header != nil {
					t.Errorf("next reply %q with %v, %v", reply.Payload, reply.Header, err)
				}
			})
		}
	})
}
