package js_test

import (
	"strings"
	"testing"

	"nex/internal/runtime/js"
)

// help is what expressions may use.
const help = `
	const parts = (u) => [u.href, u.protocol, u.username, u.password, u.host, u.port, u.pathname, u.search, u.hash, u.origin];
	const hex = async (name, text) => {
		const digest = await crypto.subtle.digest(name, new TextEncoder().encode(text));
		return [...new Uint8Array(digest)].map((b) => b.toString(16).padStart(2, "0")).join("");
	};
`

// wantValues calls a function for each expression, with help before it, and
// wants its value as a reply. "throws NAME" stands for an error of that name.
func wantValues(t *testing.T, tests [][2]string) {
	t.Helper()
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			f := load(t, e, help+`async () => { try { return `+tt[0]+` } catch (e) { return "throws " + e.name } }`)
			if got, err := f.call("s", "p"); err != nil || got != tt[1] {
				t.Errorf("%s\n got %s, %v\nwant %s", tt[0], got, err, tt[1])
			}
			for _, r := range f.take() {
				t.Errorf("%s: log %v", tt[0], r)
			}
		}
	})
}

func TestBase64(t *testing.T) {
	wantValues(t, [][2]string{
		{`btoa("hello")`, `aGVsbG8=`},
		{`btoa("")`, ``},
		{`btoa("\xff\x00é")`, `/wDp`},
		{`btoa("€")`, `throws InvalidCharacterError`},
		{`btoa("\ud800")`, `throws InvalidCharacterError`},
		{`btoa(12)`, `MTI=`},
		{`atob("aGVsbG8=")`, `hello`},
		{`atob(" aGVs\nbG8 ")`, `hello`},
		{`atob("")`, ``},
		{`[...atob("/wDp")].map((c) => c.charCodeAt(0))`, `[255,0,233]`},
		{`atob("a")`, `throws InvalidCharacterError`},
		{`atob("ab=")`, `throws InvalidCharacterError`},
		{`atob("ab===")`, `throws InvalidCharacterError`},
		{`atob("a-_b")`, `throws InvalidCharacterError`},
		{`atob("ab==") === atob("ab") && atob("ab").length`, `1`},
		{`atob(btoa("x".repeat(100_000))).length`, `100000`},
	})
}

func TestCrypto(t *testing.T) {
	wantValues(t, [][2]string{
		{`/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(crypto.randomUUID()) && crypto.randomUUID() !== crypto.randomUUID()`, `true`},
		{`crypto.getRandomValues(new Uint8Array(100)).some((b) => b > 0)`, `true`},
		{`(() => { const a = new Uint32Array(10).subarray(2, 4); return crypto.getRandomValues(a) === a && [a[0] + a[1] > 0, ...new Uint32Array(a.buffer).slice(4)] })()`, `[true,0,0,0,0,0,0]`},
		{`crypto.getRandomValues(new Uint8Array(65536)).length`, `65536`},
		{`crypto.getRandomValues(new BigUint64Array(1)).length`, `1`},
		{`crypto.getRandomValues(new Uint8Array(0)).length`, `0`},
		{`crypto.getRandomValues(new Uint8Array(65537))`, `throws QuotaExceededError`},
		{`crypto.getRandomValues(new Float64Array(1))`, `throws TypeMismatchError`},
		{`crypto.getRandomValues([1])`, `throws TypeMismatchError`},
		{`hex("SHA-1", "abc")`, `a9993e364706816aba3e25717850c26c9cd0d89d`},
		{`hex("sha-256", "abc")`, `ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad`},
		{`hex({name: "SHA-384"}, "abc")`, `cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7`},
		{`hex("SHA-512", "")`, `cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e`},
		{`hex("SHA-256", "a".repeat(3_000_000))`, `2a152c894398719c0570f83fac34ac03a0f6e8e474b995c2403aa5434f7b9dd4`},
		{`(await crypto.subtle.digest("SHA-256", new ArrayBuffer(0))) instanceof ArrayBuffer`, `true`},
		{`crypto.subtle.digest("SHA-1", new Uint8Array(1)) instanceof Promise`, `true`},
		{`await crypto.subtle.digest("MD5", new Uint8Array(1))`, `throws NotSupportedError`},
		{`await crypto.subtle.digest("SHA-1", "text")`, `throws TypeError`},
		{`await crypto.subtle.digest("SHA-1")`, `throws TypeError`},
		{`await crypto.subtle.digest("SHA-1", new Uint8Array(9).buffer.transfer()).then((d) => d.byteLength)`, `20`},
	})
}

func TestStructuredClone(t *testing.T) {
	wantValues(t, [][2]string{
		{`structuredClone({a: 1, b: [1, "x", null, undefined, true, 2n === 2n], c: {d: -0}})`, `{"a":1,"b":[1,"x",null,null,true,true],"c":{"d":0}}`},
		{`(() => { const a = {list: []}; a.self = a; a.list.push(a); const b = structuredClone(a); return b !== a && b.self === b && b.list[0] === b })()`, `true`},
		{`(() => { const x = {}; const [a, b] = structuredClone([x, x]); return a === b && a !== x })()`, `true`},
		{`(() => { const m = new Map([["k", {v: 1}]]); m.set("m", m); const c = structuredClone(m); return [c instanceof Map, c.get("k").v, c.get("m") === c, c.get("k") !== m.get("k")] })()`, `[true,1,true,true]`},
		{`[...structuredClone(new Set([1, {a: 2}]))]`, `[1,{"a":2}]`},
		{`[structuredClone(new Date(5)).getTime(), structuredClone(/a\/b/gi).source, structuredClone(/a/gi).flags]`, `[5,"a\\/b","gi"]`},
		{`(() => { const a = new Uint16Array([1, 2, 3]).subarray(1); const c = structuredClone(a); c[0] = 9; return [c instanceof Uint16Array, [...c], c.byteOffset, a[0]] })()`, `[true,[9,3],2,2]`},
		{`(() => { const b = new ArrayBuffer(4); const [x, y] = structuredClone([new Uint8Array(b), new DataView(b, 1)]); x[1] = 7; return [y.getUint8(0), x.buffer === y.buffer] })()`, `[7,true]`},
		{`(() => { const e = structuredClone(new RangeError("no", {cause: {a: 1}})); return [e instanceof RangeError, e.name, e.message, e.cause.a, typeof e.stack] })()`, `[true,"RangeError","no",1,"string"]`},
		{`(() => { class A extends Error {} const e = structuredClone(new A("m")); return [e.constructor === Error, e.message] })()`, `[true,"m"]`},
		{`(() => { const a = [1, , 3]; a.x = 2; const c = structuredClone(a); return [1 in c, c.length, c.x] })()`, `[false,3,2]`},
		{`(() => { class P { constructor() { this.x = 1 } get y() { return 2 } } const c = structuredClone(new P()); return [c instanceof P, c.x, c.y] })()`, `[false,1,null]`},
		{`Object.keys(structuredClone({a: 1, [Symbol("s")]: 2, get b() { return 3 }, ["__proto__"]: 4}))`, `["a","b","__proto__"]`},
		{`[typeof structuredClone(Object(1)), structuredClone(Object("s")).length, structuredClone(Object(true)).valueOf()]`, `["object",1,true]`},
		{`(() => { const b = new Uint8Array([1, 2]).buffer; const c = structuredClone({b}, {transfer: [b]}); return [b.detached, c.b.byteLength] })()`, `[true,2]`},
		{`structuredClone(() => 1)`, `throws DataCloneError`},
		{`structuredClone({a: [Symbol("s")]})`, `throws DataCloneError`},
		{`structuredClone(new WeakMap())`, `throws DataCloneError`},
		{`structuredClone([Promise.resolve()])`, `throws DataCloneError`},
		{`structuredClone(1, {transfer: [{}]})`, `throws DataCloneError`},
		{`structuredClone({get a() { throw new RangeError("mine") }})`, `throws RangeError`},
		{`structuredClone()`, `throws TypeError`},
		{`(() => { try { structuredClone(() => 1) } catch (e) { return [e instanceof DOMException, e instanceof Error, e.code, e.message] } })()`, `[true,true,25,"a function cannot be cloned"]`},
	})
}

func TestURL(t *testing.T) {
	wantValues(t, [][2]string{
		{`parts(new URL("https://us%20er:p@EXAMPLE.com:443/a/../b%7f/ü?q=ö 1#f g"))`,
			`["https://us%20er:p@example.com/b%7f/%C3%BC?q=%C3%B6%201#f%20g","https:","us%20er","p","example.com","","/b%7f/%C3%BC","?q=%C3%B6%201","#f%20g","https://example.com"]`},
		{`parts(new URL("http://ex.com:8080"))`, `["http://ex.com:8080/","http:","","","ex.com:8080","8080","/","","","http://ex.com:8080"]`},
		{`new URL("../x?y#z", "http://a/b/c/d").href`, `http://a/b/x?y#z`},
		{`new URL("//h/p", new URL("wss://a/b")).href`, `wss://h/p`},
		{`new URL("nats://user@host:4222/").host`, `host:4222`},
		{`new URL("http://[::1]:80/").hostname`, `[::1]`},
		{`new URL("http://0x7f.1/").hostname`, `127.0.0.1`},
		{`new URL("http://bücher.de/").hostname`, `xn--bcher-kva.de`},
		{`[new URL("mailto:a@b").origin, new URL("file:///a").origin, new URL("blob:https://a.b/c").origin]`, `["null","null","https://a.b"]`},
		{`new URL("nonsense")`, `throws TypeError`},
		{`new URL("http://a b/")`, `throws TypeError`},
		{`new URL("http://" + "a".repeat(100_000))`, `throws TypeError`},
		{`[URL.canParse("a"), URL.canParse("a", "http://b"), URL.parse("a"), URL.parse("http://b").href]`, `[false,true,null,"http://b/"]`},
		{`JSON.stringify({u: new URL("http://a")}) + String(new URL("http://a"))`, `{"u":"http://a/"}http://a/`},
		{`(() => { const u = new URL("http://a/b?c#d"); u.protocol = "https"; u.username = "me"; u.password = "p w"; u.host = "h:99"; u.pathname = "x y"; u.search = "q=1"; u.hash = ""; return u.href })()`,
			`https://me:p%20w@h:99/x%20y?q=1`},
		{`(() => { const u = new URL("http://a/"); u.port = "8"; u.hostname = "b"; u.port = "nope"; return u.href })()`, `http://b:8/`},
		{`(() => { const u = new URL("http://a/"); u.href = "https://b/?x=1"; return u.host })()`, `b`},
		{`(() => { const u = new URL("http://a/"); u.href = "b" })()`, `throws TypeError`},
		{`(() => { const u = new URL("http://a/?x=1&y=2"); const p = u.searchParams; p.append("z", "a b&c"); p.delete("x"); const href = u.href; u.search = "?n=1"; return [href, [...p], p === u.searchParams] })()`,
			`["http://a/?y=2&z=a+b%26c",[["n","1"]],true]`},
		{`(() => { const u = new URL("http://a/?x=1"); u.searchParams.delete("x"); return u.href })()`, `http://a/`},
		{`[...new URLSearchParams("?a=1&b=%C3%BC+x&&c&d=%zz&e=%ff&=f")]`, `[["a","1"],["b","ü x"],["c",""],["d","%zz"],["e","` + "\ufffd" + `"],["","f"]]`},
		{`new URLSearchParams({"a b": "1+1", "ü": "~!*'()-._"}).toString()`, `a+b=1%2B1&%C3%BC=%7E%21*%27%28%29-._`},
		{`String(new URLSearchParams([["a", 1], ["b", null], ["a", "\ud800"]]))`, `a=1&b=null&a=%EF%BF%BD`},
		{`(() => { const p = new URLSearchParams("a=1&b=2&a=3"); return [p.get("a"), p.getAll("a"), p.get("x"), p.has("b"), p.has("b", "3"), p.size, [...p.keys()], [...p.values()]] })()`,
			`["1",["1","3"],null,true,false,3,["a","b","a"],["1","2","3"]]`},
		{`(() => { const p = new URLSearchParams("b=2&a=1&b=3"); p.set("b", "9"); p.set("c", "4"); p.sort(); p.delete("c", "5"); return String(p) })()`, `a=1&b=9&c=4`},
		{`new URLSearchParams([["a"]])`, `throws TypeError`},
		{`String(new URLSearchParams(new URLSearchParams("a=1")))`, `a=1`},
	})
}

func TestHeadersAndEvents(t *testing.T) {
	wantValues(t, [][2]string{
		{`[...new Headers({B: "2", a: " 1 ", "X-Y": 3})]`, `[["a","1"],["b","2"],["x-y","3"]]`},
		{`(() => { const h = new Headers([["a", "1"], ["A", "2"]]); h.append("set-cookie", "x"); h.append("Set-Cookie", "y"); return [h.get("a"), h.get("none"), h.has("A"), h.getSetCookie(), [...h]] })()`,
			`["1, 2",null,true,["x","y"],[["a","1, 2"],["set-cookie","x"],["set-cookie","y"]]]`},
		{`(() => { const h = new Headers(new Headers({a: "1"})); h.set("a", "2"); h.delete("b"); const got = []; h.forEach((v, k) => got.push(k + v)); return [got, [...h.keys()], [...h.values()]] })()`, `[["a2"],["a"],["2"]]`},
		{`new Headers({"a b": "1"})`, `throws TypeError`},
		{`new Headers({a: "1\n2"})`, `throws TypeError`},
		{`new Headers({a: "€"})`, `throws TypeError`},
		{`new Headers([["a"]])`, `throws TypeError`},
		{`new Headers("a: b")`, `throws TypeError`},
		{`(() => { const c = new AbortController(); const got = []; c.signal.onabort = () => got.push("on"); c.signal.addEventListener("abort", (e) => got.push(e.type, e.target === c.signal)); c.abort(); c.abort(); return [got, c.signal.aborted, c.signal.reason.name] })()`,
			`[["on","abort",true],true,"AbortError"]`},
		{`AbortSignal.abort().throwIfAborted()`, `throws AbortError`},
		{`AbortSignal.abort("why").reason`, `why`},
		{`new AbortSignal()`, `throws TypeError`},
		{`await new Promise((done) => { const s = AbortSignal.any([AbortSignal.timeout(2), new AbortController().signal]); s.addEventListener("abort", () => done(s.reason.name)) })`, `TimeoutError`},
		{`(() => { const t = new EventTarget(); let n = 0; const f = () => n++; t.addEventListener("x", f); t.addEventListener("x", f); t.addEventListener("x", {handleEvent: (e) => { n += 10; e.preventDefault() }}, {once: true}); const a = [t.dispatchEvent(new Event("x", {cancelable: true})), t.dispatchEvent(new Event("x"))]; t.removeEventListener("x", f); t.dispatchEvent(new Event("x")); return [n, a] })()`,
			`[12,[false,true]]`},
		{`[new DOMException("m", "AbortError").code, String(new DOMException("m")), new DOMException("m", {name: "N", cause: 1}).cause]`, `[20,"Error: m",1]`},
	})
}

// TestGlobalsAreTheUsers: scripts, which are often bundles with parts for old
// engines, may declare and replace the globals that there are.
func TestGlobalsAreTheUsers(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		names := strings.Fields("atob btoa structuredClone crypto DOMException Event EventTarget AbortController AbortSignal Headers " +
			"setTimeout clearTimeout setInterval clearInterval queueMicrotask performance URL URLSearchParams console TextEncoder TextDecoder")
		for _, name := range names {
			// All ways for some, for the others those that bundles have.
			ways := []string{
				"var X = 1; () => X === 1 && globalThis.X === 1",
				"globalThis.X = 1; () => X === 1",
				"delete globalThis.X; () => typeof X === 'undefined'",
				"() => typeof X !== 'undefined' && X === globalThis.X && !Object.keys(globalThis).includes('X')",
				"function X() { return 1 }; () => X() === 1 && globalThis.X() === 1",
				"class X {}; () => new X() instanceof X",
				"let X = 1; () => X === 1",
			}
			if name != "URL" && name != "setTimeout" {
				ways = ways[:1]
			}
			for _, code := range ways {
				load(t, e, strings.ReplaceAll(code, "X", name)).wantReply(t, "s", "p", "true")
			}
		}
	})
}
