package js_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"nex"
	"nex/internal/runtime"
	"nex/internal/runtime/js"
)

// endless are bodies of functions that never end by themselves.
var endless = []struct{ name, body string }{
	{"loop", `for (;;) {}`},
	{"loop with catch", `for (;;) { try { for (;;) {} } catch {} }`},
	{"loop with finally", `for (;;) { try { for (;;) {} } finally { continue } }`},
	{"finally that returns", `function f() { try { for (;;) {} } finally { return 1 } } for (;;) f()`},
	{"recursion with catch", `function f() { try { f() } catch { f() } } f()`},
	{"catastrophic regexp", `/^(a+)+$/.test("a".repeat(40) + "b")`},
	{"catastrophic regexps", `for (;;) { try { /^(a+)+$/.test("a".repeat(40) + "b") } catch {} }`},
	{"await loop", `return (async () => { for (;;) await 0 })()`},
	{"loop in async function", `return (async () => { for (;;) { try { await 0; for (;;) {} } catch {} } })()`},
	{"async catch", `const f = async () => { for (;;) {} }; const g = () => f().catch(g); return g()`},
	{"job chain", `const f = () => Promise.resolve().then(f); f(); return new Promise(() => {})`},
	{"jobs after the reply", `const f = () => Promise.resolve().then(f); f(); return "done"`},
	{"loop in job", `return Promise.resolve().then(() => { for (;;) {} }).finally(() => { for (;;) {} })`},
	{"executor", `for (;;) new Promise(() => { for (;;) {} })`},
	{"thenable", `return {then() { for (;;) {} }}`},
	{"getter of then", `return {get then() { for (;;) {} }}`},
	{"toJSON", `return {toJSON() { for (;;) {} }}`},
	{"error text", `throw {toString() { for (;;) {} }, get a() { for (;;) {} }, [Symbol.toPrimitive]() { for (;;) {} }, message: 1, __proto__: {constructor: {get name() { for (;;) {} }}}}`},
	{"error subclass", `throw new (class extends Error { toString() { for (;;) {} } })()`},
	{"logged", `console.log("%d", {valueOf() { for (;;) {} }})`},
	{"comparator", `[3, 2, 1].sort(() => { for (;;) {} })`},
	{"replacer", `for (;;) "aaa".replace(/a/g, () => { for (;;) {} })`},
	{"iterator", `for (const x of {[Symbol.iterator]: () => ({next: () => ({}), return() { for (;;) {} }})});`},
	{"generator", `function* g() { for (;;) yield 1 } for (const x of g());`},
	{"destructor", `class A { static { for (;;) {} } }`},
	{"proxy", `const p = new Proxy({}, {has() { for (;;) {} }}); "a" in p`},
	{"eval", `eval("for (;;) {}")`},
	{"Function", `new Function("for (;;) {}")()`},
	{"busy natives", `const text = JSON.stringify(Array(20000).fill("abcdef")); for (;;) JSON.parse(text)`},
}

func TestDeadlineStopsEverything(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range endless {
			t.Run(tt.name, func(t *testing.T) {
				f := load(t, e, `(subject) => { if (subject !== "run") return "fine"; `+tt.body+` }`,
					func(o *js.Options) { o.MaxConcurrency = 1 })
				const patience = 60 * time.Millisecond
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				start := time.Now()
				_, err := f.Invoke(ctx, runtime.Trigger{Subject: "run"})
				took := time.Since(start)
				wantCode(t, err, nex.Timeout)
				if err != nil && !strings.HasPrefix(err.Error(), "function stopped after ") {
					t.Errorf("error %q", err)
				}
				if took < patience/2 || took > callTime/2 {
					t.Errorf("stopped after %v", took)
				}
				f.wantReply(t, "s", "p", "fine")
			})
		}
	})
}

func TestCancelStops(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		running := make(chan struct{})
		var once sync.Once
		f := load(t, e, `() => { for (;;) console.log("run") }`, func(o *js.Options) {
			o.Log = func(slog.Level, string) { once.Do(func() { close(running) }) }
		})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		failed := make(chan error)
		go func() {
			_, err := f.Invoke(ctx, runtime.Trigger{})
			failed <- err
		}()
		<-running
		cancel()
		err := <-failed
		wantCode(t, err, nex.Timeout)
		if err != nil && !strings.Contains(err.Error(), "cancelled") {
			t.Errorf("error %q does not say that the call was cancelled", err)
		}
		_, err = f.Invoke(ctx, runtime.Trigger{})
		wantCode(t, err, nex.Timeout)
	})
}

func TestMemoryLimit(t *testing.T) {
	const limit = 4 << 20
	const anyEnd = "any" // engines differ in what they can do in little memory
	tests := []struct {
		name, body string
		want       nex.Code // of the error, or "" for none
	}{
		{"objects", `const a = []; for (;;) a.push({x: 1})`, nex.OutOfMemory},
		{"arrays", `const a = []; for (;;) a.push(new Uint8Array(100_000))`, nex.OutOfMemory},
		{"one array", `return new Uint8Array(10 << 20).length`, nex.OutOfMemory},
		{"one array below", `return new Uint8Array(3 << 20).length`, ""},
		{"array after array", `for (let i = 0; i < 50; i++) new Uint8Array(2 << 20).fill(1)`, ""},
		{"growing array", `const a = []; for (;;) a.push(1, 2, 3, 4)`, nex.OutOfMemory},
		{"strings", `const a = []; for (let i = 0;; i++) a.push("text" + i)`, nex.OutOfMemory},
		{"repeat", `return "ab".repeat(5 << 20)`, nex.OutOfMemory},
		{"split", `return "a".repeat(1 << 20).split("").length`, nex.OutOfMemory},
		{"fill", `return new Array(1 << 22).fill(0).length`, nex.OutOfMemory},
		{"map", `const m = new Map(); for (let i = 0;; i++) m.set(i, {})`, nex.OutOfMemory},
		{"closures", `let f = () => 1; for (;;) { const g = f; f = () => g }`, nex.OutOfMemory},
		{"jobs", `for (;;) Promise.resolve().then(() => 1)`, nex.OutOfMemory},
		{"async", `return (async () => { const a = []; for (;;) { a.push(new Uint8Array(1 << 20)); await 0 } })()`, nex.OutOfMemory},
		{"json", `return JSON.stringify(Array(1 << 17).fill("abcdefghabcdefghabcdefghabcdefgh")).length`, nex.OutOfMemory},
		{"reply", `return Array(10_000).fill("abcdefghabcdefghabcdefghabcdefgh")`, ""},
		{"thrown anew", `try { new Uint8Array(10 << 20) } catch { throw new Error("mine") }`, nex.OutOfMemory},
		{"caught", `try { new Uint8Array(10 << 20) } catch { return "caught" }`, ""},
		{"regexp", `return new RegExp("(a{1,30000}){1,30000}".repeat(2000)).test("a")`, anyEnd},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				f := load(t, e, `(subject) => { if (subject !== "run") return "fine"; `+tt.body+` }`,
					func(o *js.Options) { o.MaxConcurrency, o.MemoryLimit = 1, limit })
				_, err := f.call("run", "p")
				if got := nex.CodeOf(err); got != tt.want && tt.want != anyEnd {
					t.Errorf("error %v of code %q, want code %q", err, got, tt.want)
				}
				f.wantReply(t, "s", "p", "fine")
			})
		}
	})
}

func TestPayloadPastTheMemoryLimit(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, `(s, p) => p.length`, func(o *js.Options) { o.MemoryLimit = 4 << 20 })
		_, err := f.call("s", strings.Repeat("x", 5<<20))
		wantCode(t, err, nex.OutOfMemory)
		_, err = f.call(strings.Repeat("x", 5<<20), "p")
		wantCode(t, err, nex.OutOfMemory)
		f.wantReply(t, "s", "four", "4")
	})
}

func TestRecursionIsAnException(t *testing.T) {
	tests := []struct{ name, body string }{
		{"plain", `function f(n) { return n === 0 ? 0 : 1 + f(n - 1) } return f(10_000)`},
		{"endless", `function f() { return f() + 1 } return f()`},
		{"methods", `const o = {get a() { return this.a }}; return o.a`},
		{"natives", `const f = () => [1].map(f); return f()`},
		{"proxy", `let p = {}; for (let i = 0; i < 20_000; i++) p = new Proxy(p, {}); return p.a`},
		{"json", `const f = () => JSON.stringify({toJSON: f}); return f()`},
		{"parse", `return JSON.parse("[".repeat(100_000))`},
		{"source", `return eval("(".repeat(100_000))`},
		{"regexp", `return new RegExp("(".repeat(100_000) + ")".repeat(100_000)).test("a")`},
		{"to string", `const a = {toString: () => String(a)}; return String(a)`},
		{"async", `const f = async () => { await f() }; return f()`},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				f := load(t, e, `(subject) => { if (subject !== "run") return "fine"; `+tt.body+` }`)
				_, err := f.call("run", "p")
				wantCode(t, err, nex.Exception)
				f.wantReply(t, "s", "p", "fine")
			})
		}
	})
}

func TestOverloaded(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		running, finish := make(chan struct{}), make(chan struct{})
		f := load(t, e, `(s) => { if (s === "wait") console.log("wait"); return s }`, func(o *js.Options) {
			o.MaxConcurrency = 1
			o.Log = func(slog.Level, string) { close(running); <-finish }
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			f.wantReply(t, "wait", "p", "wait")
		}()
		<-running
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		_, err := f.Invoke(ctx, runtime.Trigger{Subject: "s"})
		wantCode(t, err, nex.Overloaded)
		close(finish)
		<-done
		f.wantReply(t, "s", "p", "s")
	})
}

func TestCloseWaitsForCalls(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		running, finish := make(chan struct{}), make(chan struct{})
		f := load(t, e, `(s) => { console.log("wait"); return s }`, func(o *js.Options) {
			o.Log = func(slog.Level, string) { close(running); <-finish }
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			f.wantReply(t, "s", "p", "s")
		}()
		<-running
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := f.Close(ended); err == nil {
			t.Error("close did not wait for the call")
		}
		_, err := f.call("s", "p")
		wantCode(t, err, nex.Unavailable)
		close(finish)
		for range 2 {
			if err := f.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
		<-done
	})
}

func TestPanicInLogIsInternal(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, `(s) => { if (s === "panic") try { console.log("x") } finally { return "swallowed" }; return s }`, func(o *js.Options) {
			o.MaxConcurrency = 1
			o.Log = func(slog.Level, string) { panic("from the log") }
		})
		_, err := f.call("panic", "p")
		wantCode(t, err, nex.Internal)
		f.wantReply(t, "s", "p", "s")
	})
}
