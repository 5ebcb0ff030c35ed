package js_test

import (
	"encoding/json"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"nex"
	"nex/internal/runtime/js"
)

func TestThrow(t *testing.T) {
	tests := []struct {
		name, code string
		message    string // what the caller gets
		log        string // pattern of the one log record
	}{
		{"error", `() => { throw new Error("boom") }`, "Error: boom", `^echo\.js:1:\d+: Error: boom\n    at .*echo\.js:1:\d+\)?$`},
		{"in a function", "function f() {\n  throw new TypeError('t')\n}\n() => f()", "TypeError: t",
			`^echo\.js:2:\d+: TypeError: t\n    at f \(echo\.js:2:\d+\)\n    at .*echo\.js:4:\d+\)?$`},
		{"native", "() => {\n null.x }", "TypeError: ", `^echo\.js:2:\d+: TypeError: `},
		{"in a native", "() => {\n return JSON.parse('{') }", "SyntaxError: ", `(?s)SyntaxError: .*echo\.js:2:\d+`},
		{"class", `class Mine extends Error { get name() { return "Mine" } }; () => { throw new Mine("m") }`, "Mine: m", `^echo\.js:1:\d+: Mine: m\n`},
		{"cause", `() => { throw new Error("outer", {cause: new Error("inner")}) }`, "Error: outer", `(?s)Error: outer\n.*\n\[cause\]: Error: inner\n    at `},
		{"string", `() => { throw "text" }`, "text", `^text$`},
		{"object", `() => { throw {code: 7} }`, "{ code: 7 }", `^\{ code: 7 \}$`},
		{"undefined", `() => { throw undefined }`, "undefined", `^undefined$`},
		{"null", `() => { throw null }`, "null", `^null$`},
		{"symbol", `() => { throw Symbol("s") }`, "Symbol(s)", `^Symbol\(s\)$`},
		{"async", `async () => { await 0; throw new Error("later") }`, "Error: later", `^echo\.js:1:\d+: Error: later\n`},
		{"rejection", `() => Promise.reject(new RangeError("r"))`, "RangeError: r", `^echo\.js:1:\d+: RangeError: r\n`},
		{"thenable", `() => ({then: (a, b) => b(new Error("t"))})`, "Error: t", `Error: t`},
		{"getter of then", `() => ({get then() { throw new Error("g") }})`, "Error: g", `Error: g`},
		{"bad error", `() => { throw Object.defineProperty(new Error("x"), "message", {get() { throw 1 }}) }`, "an exception that cannot be shown", `cannot be shown`},
		{"never settles", `() => new Promise(() => {})`, "promise never settles", `^promise never settles$`},
		{"never settles later", `async () => { await 0; await new Promise(() => {}) }`, "promise never settles", `^promise never settles$`},
		{"class called", `(class {})`, "TypeError: ", `TypeError: `},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				f := load(t, e, tt.code)
				_, err := f.call("s", "p")
				wantCode(t, err, nex.Exception)
				if got := err.Error(); got != tt.message && !(strings.HasSuffix(tt.message, ": ") && strings.HasPrefix(got, tt.message)) {
					t.Errorf("error %q, want %q", got, tt.message)
				}
				records := f.take()
				if len(records) != 1 || records[0].level != slog.LevelError || !regexp.MustCompile(tt.log).MatchString(records[0].text) {
					t.Errorf("log %v, want one error that matches %s", records, tt.log)
				}
			})
		}
	})
}

func TestConsole(t *testing.T) {
	const debug, info, warn, failure = slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError
	tests := []struct {
		code string
		want []record
	}{
		{`console.log("a")`, []record{{info, "a"}}},
		{`console.info("a", 1, true, null, undefined)`, []record{{info, "a 1 true null undefined"}}},
		{`console.warn("w"); console.error("e"); console.debug("d")`, []record{{warn, "w"}, {failure, "e"}, {debug, "d"}}},
		{`console.log()`, []record{{info, ""}}},
		{`console.log("two\nlines")`, []record{{info, "two\nlines"}}},
		{`console.log("%s is %d years and %i, %f", "Bob", 42, 42.9, "1.5")`, []record{{info, "Bob is 42 years and 42, 1.5"}}},
		{`console.log("%j %o %O", {a: "x"}, {a: "x"}, [1])`, []record{{info, `{"a":"x"} { a: 'x' } [ 1 ]`}}},
		{`console.log("%c%s%%", "color: red", 1, "more")`, []record{{info, "1% more"}}},
		{`console.log("100%"); console.log("100%%"); console.log("%s")`, []record{{info, "100%"}, {info, "100%%"}, {info, "%s"}}},
		{`console.log("%d %i %s", 10n, 10n, Symbol("s"))`, []record{{info, "10n 10n Symbol(s)"}}},
		{`console.log({a: 1, "b-c": "it's", d: {e: [1, [2]]}})`, []record{{info, `{ a: 1, 'b-c': 'it\'s', d: { e: [ 1, [ 2 ] ] } }`}}},
		{`const a = {}; a.self = a; a.list = [a]; console.log(a)`, []record{{info, `{ self: [Circular], list: [ [Circular] ] }`}}},
		{`console.log([], {}, [undefined, -0, 1n, "s"])`, []record{{info, `[] {} [ undefined, -0, 1n, 's' ]`}}},
		{`console.log(new Map([["k", {v: 1}]]), new Set([1]))`, []record{{info, `Map(1) { 'k' => { v: 1 } } Set(1) { 1 }`}}},
		{`console.log(new Uint8Array([1, 2]), new ArrayBuffer(3))`, []record{{info, `Uint8Array(2) [ 1, 2 ] ArrayBuffer { byteLength: 3 }`}}},
		{`console.log(new Date(0), new Date(NaN), /x/g, Symbol("y"))`, []record{{info, `1970-01-01T00:00:00.000Z Invalid Date /x/g Symbol(y)`}}},
		{`console.log(function f() {}, () => 1, class C {}, Math.max)`, []record{{info, `[Function: f] [Function (anonymous)] [class: C] [Function: max]`}}},
		{`class P { constructor() { this.x = 1 } } console.log(new P(), Object.create(null))`, []record{{info, `P { x: 1 } [Object: null prototype] {}`}}},
		{`console.log({get a() { return 1 }, set a(v) {}, get b() { return 1 }, set c(v) {}})`, []record{{info, `{ a: [Getter/Setter], b: [Getter], c: [Setter] }`}}},
		{`console.log({a: {b: {c: {d: {e: {f: {g: 1}}}}}}})`, []record{{info, `{ a: { b: { c: { d: { e: { f: [Object] } } } } } }`}}},
		{`console.log(Array(102).fill(7))`, []record{{info, "[ " + strings.Repeat("7, ", 100) + "... 2 more ]"}}},
		{`console.log({[Symbol("k")]: 1})`, []record{{info, `{ [Symbol(k)]: 1 }`}}},
		{`console.log(new Proxy({}, {ownKeys() { throw 1 }}))`, []record{{info, `[a value that cannot be shown]`}}},
		{`console.assert(true, "no"); console.assert(false, "x %d", 1); console.assert(false)`, []record{{failure, "Assertion failed: x 1"}, {failure, "Assertion failed"}}},
		{`console.count(); console.count("c"); console.count(); console.countReset(); console.count()`,
			[]record{{info, "default: 1"}, {info, "c: 1"}, {info, "default: 2"}, {info, "default: 1"}}},
		{`console.table([1]); console.dir({a: 1}, {depth: 0}); console.group("g"); console.groupEnd()`, []record{{info, "[ 1 ]"}, {info, "{ a: 1 }"}, {info, "g"}}},
		{`console.log(ctx.headers, ctx.env)`, []record{{info, "{} {}"}}},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			f := load(t, e, `(subject, payload, ctx) => { `+tt.code+` }`)
			f.wantReply(t, "s", "p", "")
			got := f.take()
			if len(got) != len(tt.want) {
				t.Errorf("%s: %d records %v, want %d", tt.code, len(got), got, len(tt.want))
				continue
			}
			for i := range got {
				if got[i] != tt.want[i] {
					t.Errorf("%s:\n got %v\nwant %v", tt.code, got[i], tt.want[i])
				}
			}
		}
	})
}

func TestConsolePatterns(t *testing.T) {
	tests := []struct{ code, want string }{
		{`console.log(new Error("boom"))`, `^Error: boom\n    at .*echo\.js:1:\d+\)?$`},
		{`console.log({e: new TypeError("in")})`, `^\{ e: TypeError: in\n    at .*echo\.js:1:\d+\)? \}$`},
		{`console.log("failed:", new Error("a", {cause: "b"}))`, `(?s)^failed: Error: a\n    at .*\n\[cause\]: 'b'$`},
		{`console.trace("here %d", 1)`, `^Trace: here 1\n    at .*echo\.js:1:\d+\)?$`},
		{`console.time("t"); console.timeEnd("t")`, `^t: \d+ms$`},
		{`console.log(ctx)`, `^\{ subject: 's', payload: Uint8Array\(1\) \[ 112 \], reply: '', deadline: \d+ \}$`},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			f := load(t, e, `(subject, payload, ctx) => { `+tt.code+` }`)
			f.wantReply(t, "s", "p", "")
			got := f.take()
			if len(got) != 1 || !regexp.MustCompile(tt.want).MatchString(got[0].text) {
				t.Errorf("%s: log %v, want one that matches %s", tt.code, got, tt.want)
			}
		}
	})
}

func TestConsoleCapsItsTexts(t *testing.T) {
	tests := []string{
		`console.log("é".repeat(70_000))`,
		`console.log("x", "é".repeat(70_000), "y")`,
		`console.log({a: "é".repeat(70_000)}, {b: 1})`,
		`console.log(Array(30_000).fill("éééééééééééé"))`,
		`const o = {}; for (let i = 0; i < 1000; i++) o["é" + i] = {a: {b: {c: [i]}}}; console.log(o)`,
		`let o = []; for (let i = 0; i < 18; i++) o = [o, o, o]; console.log(o); console.log("é".repeat(70_000))`,
		`throw new Error("é".repeat(70_000))`,
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, code := range tests {
			f := load(t, e, `() => { `+code+` }`)
			_, err := f.call("s", "p")
			if err != nil && len(err.Error()) > 64<<10 {
				t.Errorf("%s: an error of %d bytes", code, len(err.Error()))
			}
			got := f.take()
			if len(got) == 0 {
				t.Errorf("%s: no log", code)
			}
			for _, r := range got {
				if len(r.text) > 64<<10 || !utf8.ValidString(r.text) {
					t.Errorf("%s: a text of %d bytes", code, len(r.text))
				}
			}
			if last := got[len(got)-1].text; !strings.Contains(last, "…") && !strings.Contains(last, " more") {
				t.Errorf("%s: a text that ends with %q is not marked as cut", code, last[max(0, len(last)-20):])
			}
		}
	})
}

func TestConsoleWhileLoading(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, `console.log("loading"); Promise.resolve().then(() => console.log("loaded")); () => {}`)
		if got := f.take(); len(got) != 2 || got[0].text != "loading" || got[1].text != "loaded" {
			t.Errorf("log %v", got)
		}
	})
}

func TestJobsAfterTheReplyRun(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, `() => { Promise.resolve().then(() => console.log("after")); return "reply" }`)
		f.wantReply(t, "s", "p", "reply")
		if got := f.take(); len(got) != 1 || got[0].text != "after" {
			t.Errorf("log %v", got)
		}
	})
}

func TestTextCodecs(t *testing.T) {
	tests := []struct{ code, want string }{
		{`[...new TextEncoder().encode("hé€🦊")]`, `[104,195,169,226,130,172,240,159,166,138]`},
		{`[...new TextEncoder().encode("a\ud800")]`, `[97,239,191,189]`},
		{`[...new TextEncoder().encode()]`, `[]`},
		{`new TextEncoder().encode("x") instanceof Uint8Array && new TextEncoder().encoding`, `utf-8`},
		{`(() => { const to = new Uint8Array(5); return [new TextEncoder().encodeInto("é€🦊", to), [...to]] })()`, `[{"read":2,"written":5},[195,169,226,130,172]]`},
		{`(() => { const to = new Uint8Array(4); return [new TextEncoder().encodeInto("a€🦊", to), [...to]] })()`, `[{"read":2,"written":4},[97,226,130,172]]`},
		{`(() => { const to = new Uint8Array(3); return [new TextEncoder().encodeInto("🦊", to), [...to]] })()`, `[{"read":0,"written":0},[0,0,0]]`},
		{`(() => { const to = new Uint8Array(9); return new TextEncoder().encodeInto("🦊é", to) })()`, `{"read":3,"written":6}`},
		{`new TextDecoder().decode(new Uint8Array([104, 195, 169, 226, 130, 172, 240, 159, 166, 138]))`, `hé€🦊`},
		{`new TextDecoder("UTF-8 ").decode(new Uint8Array([104]).buffer) + new TextDecoder().decode()`, `h`},
		{`new TextDecoder().decode(new DataView(new Uint8Array([97, 98, 99]).buffer, 1, 1))`, `b`},
		{`new TextDecoder().decode(new Uint16Array([0x6261]))`, `ab`},
		{`new TextDecoder().decode(new Uint8Array([0xef, 0xbb, 0xbf, 97]))`, `a`},
		{`new TextDecoder("utf8", {ignoreBOM: true}).decode(new Uint8Array([0xef, 0xbb, 0xbf, 97])).length`, `2`},
		{`new TextDecoder().decode(new Uint8Array([97, 0xff, 0xe2, 0x82, 98, 0xf0, 0x9f, 0xa6, 0xed, 0xa0, 0x80]))`, "a\ufffd\ufffdb\ufffd\ufffd\ufffd\ufffd"},
		{`(() => { try { new TextDecoder("utf-8", {fatal: true}).decode(new Uint8Array([0xff])) } catch (e) { return e.name } })()`, `TypeError`},
		{`new TextDecoder("utf-8", {fatal: true}).decode(new Uint8Array([0xc3, 0xa9]))`, `é`},
		{`(() => { try { new TextDecoder("latin1") } catch (e) { return e.name } })()`, `RangeError`},
		{`(() => { try { new TextDecoder().decode("text") } catch (e) { return e.name } })()`, `TypeError`},
		{`(() => { const d = new TextDecoder(); return [...new TextEncoder().encode("\ufeffé€🦊")].map((b) => d.decode(new Uint8Array([b]), {stream: true})).join("|") })()`, `||||é|||€||||🦊`},
		{`(() => { const d = new TextDecoder(); return d.decode(new Uint8Array([0xe2, 0x82]), {stream: true}) + d.decode() + d.decode(new Uint8Array([97])) })()`, "\ufffda"},
		{`Object.keys(new TextDecoder()).length`, `0`},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			f := load(t, e, `() => `+tt.code)
			got, err := f.call("s", "p")
			if err != nil || got != tt.want {
				t.Errorf("%s = %q, %v; want %q", tt.code, got, err, tt.want)
			}
		}
	})
}

func FuzzTextDecoder(f *testing.F) {
	f.Add([]byte("text"))
	f.Add([]byte{0xf0, 0x9f, 0xa6, 0xe2, 0x82, 0xff})
	const code = `(s, payload) => {
		const d = new TextDecoder();
		let parts = "";
		for (const byte of payload) parts += d.decode(new Uint8Array([byte]), {stream: true});
		return [new TextDecoder().decode(payload), parts + d.decode()];
	}`
	var decoders []fixture
	for _, e := range engines(f) {
		decoders = append(decoders, load(f, e, code))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, fn := range decoders {
			reply, err := fn.call("s", string(text))
			if err != nil {
				t.Fatal(err)
			}
			var got [2]string
			if err := json.Unmarshal([]byte(reply), &got); err != nil {
				t.Fatal(err)
			}
			if utf8.Valid(text) && got[0] != strings.TrimPrefix(string(text), "\ufeff") {
				t.Errorf("%q decoded to %q", text, got[0])
			}
			if got[0] != got[1] {
				t.Errorf("%q decoded to %q at once and to %q byte by byte", text, got[0], got[1])
			}
		}
	})
}
