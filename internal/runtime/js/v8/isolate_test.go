//go:build v8 && linux && (amd64 || arm64)

package v8

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"nex/internal/nextest/leaks"
	"nex/internal/runtime/js"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

const mib = 1 << 20

// callTime bounds calls that are expected to end by themselves. It is long,
// because the machine may be busy.
const callTime = time.Minute

// newTest returns an isolate of the script, and what it prints.
func newTest(tb testing.TB, e *Engine, code string, memory int64) (*isolate, *[]string) {
	tb.Helper()
	var printed []string
	iso, err := e.New(tb.Context(), js.Source{
		Name: "test.js", Code: []byte(code), Info: `{"env":{}}`, Memory: memory,
		Print: func(_ int, text string) { printed = append(printed, text) },
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(iso.Close)
	return iso.(*isolate), &printed
}

func newEngine(tb testing.TB) *Engine {
	tb.Helper()
	e, err := New()
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// call runs code as the body of a function, in a new isolate.
func call(t *testing.T, e *Engine, body string, memory int64, patience time.Duration) (string, error) {
	t.Helper()
	i, _ := newTest(t, e, "(subject, payload, ctx) => { "+body+" }", memory)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	reply, err := i.Call(ctx, js.Call{Subject: "s", Deadline: math.Inf(1)})
	if got, want := i.Usable(), !errors.Is(err, js.ErrStopped) && !errors.Is(err, js.ErrMemory); got != want {
		t.Errorf("usable %t after %v", got, err)
	}
	return string(reply.Payload), err
}

// What the optimising compiler makes of a loop must not lose the checks that
// stop it.
func TestHotLoopsStop(t *testing.T) {
	e := newEngine(t)
	for _, body := range []string{
		`let a; for (;;) { a = new Array(1000).fill({x: 1}) }`,
		`let n = 0; for (;;) n = (n * 31 + 7) | 0`,
		`const a = new Float64Array(1000); for (;;) for (let i = 0; i < 1000; i++) a[i] += i`,
		`const f = (n) => n < 2 ? n : f(n - 1) + f(n - 2); for (;;) f(20)`,
		`let s; for (;;) s = "x".repeat(1000).split("").reverse().join("")`,
		`const m = new Map(); for (let i = 0;; i = (i + 1) % 100) m.set(i, m.get(i))`,
		`for (;;) Math.atan2(Math.random(), 1)`,
		`for (;;) { try { null.x } catch {} finally { continue } }`,
		`/^(([a-z])+.)+[A-Z]([a-z])+$/.test("a".repeat(50))`,
		`for (;;) "a".repeat(10_000).replace(/a*b/g, "")`,
		`return (async () => { for (;;) await Promise.all([1, 2, 3].map(async (x) => x)) })()`,
		`const p = new Proxy({}, {get: (t, k, r) => r}); let o = p; for (;;) o = o.x`,
		`[..."x".repeat(100_000)].sort(() => Math.random() - 0.5).map(() => { for (;;) {} })`,
		`let n = 3n; for (;;) n = n * n % (2n ** 4096n)`,
		`for (const x of (function* () { for (;;) yield* [1, 2] })());`,
	} {
		const patience = 200 * time.Millisecond // enough to be compiled
		start := time.Now()
		_, err := call(t, e, body, 64*mib, patience)
		if took := time.Since(start); !errors.Is(err, js.ErrStopped) || took < patience/2 || took > callTime/2 {
			t.Errorf("%s: %v after %v", body, err, took)
		}
	}
}

// bombs take more memory than there is.
var bombs = []struct{ name, body string }{
	{"arrays", `const a = []; for (;;) a.push(new Array(1000).fill(1))`},
	{"one array", `return new Array(32 << 20).fill(1).length`},
	{"doubles", `return new Array(16 << 20).fill(1.5).length`},
	{"array buffers", `const a = []; for (;;) a.push(new ArrayBuffer(1 << 20))`},
	{"small buffers", `const a = []; for (;;) a.push(new Uint8Array(100))`},
	{"one buffer", `return new ArrayBuffer(100 << 20).byteLength`},
	{"shared buffers", `const a = []; for (;;) a.push(new SharedArrayBuffer(1 << 20))`},
	{"buffers that can grow", `const a = []; for (;;) a.push(new ArrayBuffer(0, {maxByteLength: 1 << 20}))`},
	{"a buffer that can grow", `const b = new ArrayBuffer(0, {maxByteLength: 2 ** 32}); b.resize(2 ** 32); new Uint8Array(b).fill(1)`},
	{"shared buffers that grow", `const a = []; for (;;) { const b = new SharedArrayBuffer(0, {maxByteLength: 1 << 20}); b.grow(1 << 20); a.push(b) }`},
	{"transferred", `const a = []; for (;;) a.push(new ArrayBuffer(0, {maxByteLength: 1 << 20}).transfer(10))`},
	{"a class of buffers", `class B extends ArrayBuffer {} const a = []; for (;;) a.push(new B(0, {maxByteLength: 1 << 20}))`},
	{"constructed", `const a = []; for (;;) a.push(Reflect.construct(new ArrayBuffer(1).constructor, [0, {maxByteLength: 1 << 20}], Array))`},
	{"strings", `const a = []; for (let i = 0;; i++) a.push(("text" + i).repeat(1000).toUpperCase())`},
	{"a string", `let s = "x"; for (;;) { s += s; s.charCodeAt(s.length - 1); /y/.test(s) }`},
	{"wide string", `return "\u20ac".repeat(32 << 20)`},
	{"map", `const m = new Map(); for (let i = 0;; i++) m.set("key" + i, {i})`},
	{"closures", `let f = () => 1; for (;;) { const g = f; f = () => g }`},
	{"jobs", `for (;;) Promise.resolve().then(() => 1)`},
	{"json", `let o = {}; for (;;) o = {a: JSON.stringify(o), b: o}`},
	{"catch", `const a = []; for (;;) try { for (;;) a.push({}) } catch {}`},
	{"finally", `const a = []; const f = () => { try { for (;;) a.push({}) } finally { return f() } }; f()`},
	{"errors", `const a = []; for (;;) a.push(new Error("x"))`},
	{"a reply of 100 MB", `return "a".repeat(100_000_000)`},
	{"jobs that fork", `const f = () => { const p = Promise.resolve(); p.then(f); p.then(f) }; f()`},
	{"functions", `const a = []; for (let i = 0;; i++) a.push(new Function("return " + i))`},
}

func TestMemoryBombs(t *testing.T) {
	e := newEngine(t)
	for _, bomb := range bombs {
		t.Run(bomb.name, func(t *testing.T) {
			const limit = 32 * mib
			before := resident(t)
			_, err := call(t, e, bomb.body, limit, callTime)
			var thrown *js.Thrown // RangeError of what is too long for the language
			if !errors.Is(err, js.ErrMemory) && (!errors.As(err, &thrown) || !strings.HasPrefix(thrown.Message, "RangeError: ")) {
				t.Errorf("error %v", err)
			}
			if grown := resident(t) - before; grown > 10*limit { // one native function may get that far
				t.Errorf("resident memory grew by %d MiB", grown/mib)
			}
		})
	}
}

// resident is how much memory this process has, in bytes.
func resident(tb testing.TB) int64 {
	tb.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		tb.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// Memory that can be collected is no reason to stop.
func TestGarbageIsNoBomb(t *testing.T) {
	e := newEngine(t)
	for _, body := range []string{
		`for (let i = 0; i < 500; i++) new Array(1 << 18).fill(i)`,
		`for (let i = 0; i < 500; i++) new ArrayBuffer(1 << 20)`,
		`for (let i = 0; i < 500; i++) new ArrayBuffer(0, {maxByteLength: 1 << 20}).resize(1 << 20)`,
		`let s; for (let i = 0; i < 500; i++) s = "ab".repeat(1 << 18).toUpperCase()`,
		`for (let i = 0; i < 100_000; i++) JSON.parse('{"a":[1,2,3]}')`,
	} {
		if _, err := call(t, e, body, 16*mib, callTime); err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// A payload is good until its call is over, and replies that are made of it are
// whole.
func TestPayloadGoesWithItsCall(t *testing.T) {
	i, _ := newTest(t, newEngine(t), `let kept; (s, p) => { const before = kept?.length; kept = p; return s === "" ? p.subarray(1) : String(before) }`, 16*mib)
	for _, c := range []struct{ subject, want string }{{"", "ayload"}, {"kept", "0"}, {"", "ayload"}} {
		if reply, err := i.Call(t.Context(), js.Call{Subject: c.subject, Payload: []byte("payload")}); err != nil || string(reply.Payload) != c.want {
			t.Errorf("reply %q, %v; want %q", reply.Payload, err, c.want)
		}
	}
}

func TestNoWebAssembly(t *testing.T) {
	reply, err := call(t, newEngine(t), `return [typeof WebAssembly, "WebAssembly" in globalThis, typeof gc, Object.getOwnPropertyNames(globalThis).filter((n) => /wasm|assembly/i.test(n)).length]`, 16*mib, callTime)
	if err != nil || reply != `["undefined",false,"undefined",0]` {
		t.Errorf("reply %s, %v", reply, err)
	}
}

// Recursion ends in an exception on every thread, wherever its stack is, and
// how often it happens.
func TestRecursionOnManyThreads(t *testing.T) {
	i, _ := newTest(t, newEngine(t), `const f = (n) => n === 0 ? 0 : 1 + f(n - 1); (s) => { try { return f(Number(s)) } catch (e) { return e.message } }`, 16*mib)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range 20 {
		wg.Go(func() {
			runtime.LockOSThread() // and the thread ends with the goroutine
			mu.Lock()
			defer mu.Unlock()
			for depth, want := range map[string]string{"1000": "1000", "10000": "Maximum call stack size exceeded", "1000000": "Maximum call stack size exceeded"} {
				if reply, err := i.Call(t.Context(), js.Call{Subject: depth}); err != nil || string(reply.Payload) != want {
					t.Errorf("reply %q, %v", reply.Payload, err)
				}
			}
		})
	}
	wg.Wait()
}

// Scripts can change everything that the prelude uses, and harm themselves by
// it, but nothing else.
func TestTamperedGlobals(t *testing.T) {
	e := newEngine(t)
	const spoil = `for (const o of [Array, String, Object, Promise, Uint8Array, ArrayBuffer, Function, RegExp, Error])
		for (const k of Object.getOwnPropertyNames(o.prototype)) try { o.prototype[k] = %s } catch {};
		for (const k of Object.getOwnPropertyNames(globalThis)) try { if (k !== "globalThis" && k !== "Error") globalThis[k] = %[1]s } catch {};`
	for _, value := range []string{`() => ({})`, `function () { return 7 }`, `null`, `() => { throw 1 }`, `() => "x"`, `new Proxy(() => {}, {})`} {
		for _, end := range []string{
			`return p`, `return "s"`, `return {a: 1}`, `throw new Error("e")`, `throw {a: 1}`, `return new DataView(b)`, `return (async () => p)()`,
			`return {then: (f) => f(1)}`, `return ctx.text()`, `log("%s", {a: 1}, p, [1])`, `return enc.encode("x")`, `return dec.decode(p)`,
			`return dec.decode({})`, `null.x`, `return () => 1`, `return new AB(1, {maxByteLength: 2})`, `return b.transfer(3)`,
		} {
			code := `const log = console.log, enc = new TextEncoder(), dec = new TextDecoder(), AB = ArrayBuffer; (s, p, ctx) => { const b = new AB(4); ` +
				fmt.Sprintf(spoil, value) + end + ` }`
			i, _ := newTest(t, e, code, 16*mib)
			ctx, cancel := context.WithTimeout(t.Context(), callTime)
			for range 2 {
				_, err := i.Call(ctx, js.Call{Subject: "s", Payload: []byte("payload")})
				if errors.Is(err, js.ErrStopped) || errors.Is(err, js.ErrMemory) {
					t.Errorf("%s, %s: %v", value, end, err)
				}
			}
			cancel()
		}
	}
}

// Isolates that come and go leave no memory behind.
func TestIsolatesLeaveNothing(t *testing.T) {
	e := newEngine(t)
	round := func(n int) int64 {
		for range n {
			iso, err := e.New(t.Context(), js.Source{
				Name: "t.js", Code: []byte(`let n = 0; (s, p) => { n++; new ArrayBuffer(1, {maxByteLength: 1000}); return p }`),
				Info: `{"env":{}}`, Memory: 64 * mib, Print: func(int, string) {},
			})
			if err != nil {
				t.Fatal(err)
			}
			if reply, err := iso.Call(t.Context(), js.Call{Payload: make([]byte, 64<<10)}); err != nil || len(reply.Payload) != 64<<10 {
				t.Fatal(len(reply.Payload), err)
			}
			iso.Close()
		}
		debug.FreeOSMemory()
		return resident(t)
	}
	before := round(50)
	if grown := round(100) - before; grown > 10*mib {
		t.Errorf("100 isolates left %d KiB", grown>>10)
	}
}

// Every kind of call, over and over, must leave nothing behind.
func TestCallsLeaveNothing(t *testing.T) {
	const code = `(subject, payload, ctx) => {
		switch (subject) {
		case "bytes": return payload;
		case "text": return ctx.text() + ctx.reply;
		case "json": return {headers: ctx.headers, list: [ctx.env, ctx.deadline]};
		case "async": return (async () => { await 0; return payload.subarray(1) })();
		case "thenable": return {then: (done) => Promise.resolve().then(() => done(payload.buffer))};
		case "throw": throw new Error("boom " + ctx.text());
		case "reject": return Promise.reject({code: 1});
		case "never": return new Promise(() => {});
		case "bad": return [10n];
		case "cycle": { const a = {payload}; a.a = a; return a.payload }
		case "print": console.log("%s %o", subject, {payload}, new Map([[1, payload]])); return;
		case "codec": return new TextDecoder().decode(new TextEncoder().encode(subject + "é"));
		case "detached": payload.buffer.transfer(); return payload;
		case "import": return import("os").catch((e) => e.message);
		case "eval": return eval("(() => 1)")();
		case "regexp": return subject.replace(/(x)|(p)/g, (m) => m + m);
		case "grows": return new ArrayBuffer(payload.length, {maxByteLength: 2 * payload.length + 1});
		}
	}`
	kinds := []string{
		"bytes", "text", "json", "async", "thenable", "throw", "reject", "never", "bad", "cycle", "print", "codec",
		"detached", "import", "eval", "regexp", "grows",
	}
	i, printed := newTest(t, newEngine(t), code, 64*mib)
	payload := []byte(strings.Repeat("payload ", 400))
	calls := func(n int) int64 {
		for n := range n {
			c := js.Call{
				Subject: kinds[n%len(kinds)], Reply: "_INBOX.é", Deadline: math.Inf(1), Payload: payload[:n%len(payload)],
				Header: `{"Key":["value"]}`,
			}
			if _, err := i.Call(context.Background(), c); errors.Is(err, js.ErrMemory) || errors.Is(err, js.ErrStopped) {
				t.Fatal(err)
			}
			*printed = (*printed)[:0]
			if !i.Usable() {
				t.Fatalf("unusable after %s", c.Subject)
			}
		}
		debug.FreeOSMemory()
		return resident(t)
	}
	before := calls(20_000)
	if grown := calls(50_000) - before; grown > 10*mib {
		t.Errorf("memory grew by %d KiB", grown>>10)
	}
}

// A context that ends just when the call does must leave the isolate fit for
// the next call, or unusable; never stuck and never stopped by mistake.
func TestContextEndsWithTheCall(t *testing.T) {
	e := newEngine(t)
	i, _ := newTest(t, e, `() => 1`, 16*mib)
	for n := range 500 {
		ctx, cancel := context.WithCancel(t.Context())
		started := make(chan struct{})
		go func() {
			close(started)
			cancel()
		}()
		if n%2 == 0 {
			<-started
		}
		if _, err := i.Call(ctx, js.Call{}); err != nil && !errors.Is(err, js.ErrStopped) {
			t.Fatal(err)
		}
		<-started
		if !i.Usable() {
			i, _ = newTest(t, e, `() => 1`, 16*mib)
		}
		if reply, err := i.Call(t.Context(), js.Call{}); err != nil || string(reply.Payload) != "1" {
			t.Fatalf("reply %q, %v", reply.Payload, err)
		}
	}
}

// Code that begins when its context has ended already is stopped all the same.
func TestContextThatEndedBefore(t *testing.T) {
	e := newEngine(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		i, _ := newTest(t, e, `() => { for (;;) {} }`, 16*mib)
		if _, err := i.Call(ctx, js.Call{}); !errors.Is(err, js.ErrStopped) {
			t.Fatal(err)
		}
	}
}

// The watchdog sleeps between calls, and wakes for each.
func TestWatchdogEndsAndBeginsAnew(t *testing.T) {
	e := newEngine(t)
	for range 3 {
		if _, err := call(t, e, `for (;;) {}`, 16*mib, 10*time.Millisecond); !errors.Is(err, js.ErrStopped) {
			t.Fatal(err)
		}
		deadline := time.After(callTime)
		tick := time.NewTicker(tick)
		defer tick.Stop()
		for e.watchdog.awake.Load() {
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatal("the watchdog does not end")
			}
		}
	}
}

func TestPanicsOfThePrintFunctionPass(t *testing.T) {
	i, _ := newTest(t, newEngine(t), `() => { for (;;) try { console.log("x") } catch {} }`, 16*mib)
	i.print = func(int, string) { panic("print") }
	v := func() (v any) {
		defer func() { v = recover() }()
		_, _ = i.Call(t.Context(), js.Call{})
		return nil
	}()
	if v != "print" || i.Usable() {
		t.Errorf("recovered %v, usable %t", v, i.Usable())
	}
}

// Isolates with little memory run out of it at any allocation there is.
func TestAnyAllocationMayFail(t *testing.T) {
	e := newEngine(t)
	const code = `class A { #x = 1; get x() { return this.#x } }
		const table = new Map(); let tag = Symbol("s"); var re = /(?<year>\d{4})-\d+/gu;
		for (let i = 0; i < 500; i++) table.set(i, new A());
		async function* stream() { yield 1; await 0; yield* [2, 3] }
		async (subject, payload, ctx) => {
			const all = []; for await (const x of stream()) all.push(x, ...payload);
			console.log("%o", {all, table, re}, new Error("e", {cause: all}));
			try { null.x } catch (e) { all.push(e.message.replace(/n/g, (m) => m + m)) }
			return {all, text: ctx.text(), json: JSON.stringify(all).split(","), subject, year: "2026-01".match(re), big: String(2n ** 999n)};
		}`
	for memory := int64(minMemory); memory < 4*mib; memory += 100_003 {
		iso, err := e.New(t.Context(), js.Source{Name: "t.js", Code: []byte(code), Info: `{"env":{}}`, Memory: memory, Print: func(int, string) {}})
		if errors.Is(err, js.ErrMemory) {
			continue
		}
		if err != nil {
			t.Fatalf("load with %d bytes: %v", memory, err)
		}
		for n := range 18 {
			payload := []byte(strings.Repeat("x", 1<<n))
			_, err := iso.Call(t.Context(), js.Call{Subject: "s", Payload: payload, Header: `{"a":["b"]}`})
			if err != nil && !errors.Is(err, js.ErrMemory) && !strings.HasPrefix(err.Error(), "RangeError: ") { // of too many arguments
				t.Errorf("call with %d bytes of memory and %d of payload: %v", memory, len(payload), err)
			}
			if !iso.Usable() {
				break
			}
		}
		iso.Close()
	}
}

// Many isolates at once, on many goroutines each.
func TestIsolatesInParallel(t *testing.T) {
	e := newEngine(t)
	var wg sync.WaitGroup
	for n := range 8 {
		i, _ := newTest(t, e, `let calls = 0; async (s, p, ctx) => { await 0; return [++calls, s, ctx.text()] }`, 32*mib)
		var mu sync.Mutex
		calls := 0
		for k := range 125 {
			wg.Go(func() {
				mu.Lock()
				defer mu.Unlock()
				calls++
				want := fmt.Sprintf(`[%d,"%d","%d"]`, calls, n, k)
				reply, err := i.Call(t.Context(), js.Call{Subject: fmt.Sprint(n), Payload: fmt.Append(nil, k)})
				if err != nil || string(reply.Payload) != want {
					t.Errorf("reply %s, %v; want %s", reply.Payload, err, want)
				}
			})
		}
	}
	wg.Wait()
}
