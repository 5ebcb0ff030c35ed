package quickjs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	lib "modernc.org/libquickjs"

	"nex/internal/nextest/leaks"
	"nex/internal/runtime/js"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// newEngine returns an engine.
func newEngine(tb testing.TB) *Engine {
	tb.Helper()
	e, err := New()
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

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

// usage is what an isolate uses when its garbage is collected.
func usage(i *isolate) lib.TJSMemoryUsage {
	lib.XJS_RunGC(i.tls, i.rt)
	p := i.heap.get(int(unsafe.Sizeof(lib.TJSMemoryUsage{})))
	lib.XJS_ComputeMemoryUsage(i.tls, i.rt, p)
	u := *(*lib.TJSMemoryUsage)(pointer(p))
	i.heap.put(p)
	return u
}

// Every kind of call, over and over, must leave nothing behind.
func TestCallsLeakNothing(t *testing.T) {
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
		}
	}`
	kinds := []string{
		"bytes", "text", "json", "async", "thenable", "throw", "reject", "never", "bad", "cycle", "print", "codec",
		"detached", "import", "eval", "regexp",
	}
	i, printed := newTest(t, newEngine(t), code, 64<<20)
	payload := make([]byte, 3000)
	if _, err := rand.Read(payload); err != nil {
		t.Fatal(err)
	}
	calls := func(n int) lib.TJSMemoryUsage {
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
		return usage(i)
	}
	before, blocks := calls(10*len(kinds)), len(i.heap.large)
	after := calls(100_000 / slower)
	if before.Fobj_count != after.Fobj_count || before.Fstr_count != after.Fstr_count || before.Fatom_count != after.Fatom_count {
		t.Errorf("objects %d → %d, strings %d → %d, atoms %d → %d", before.Fobj_count, after.Fobj_count,
			before.Fstr_count, after.Fstr_count, before.Fatom_count, after.Fatom_count)
	}
	if grown := after.Fmalloc_size - before.Fmalloc_size; grown > 64<<10 {
		t.Errorf("memory grew by %d bytes", grown)
	}
	if len(i.heap.large) > blocks {
		t.Errorf("large blocks %d → %d", blocks, len(i.heap.large))
	}
	if i.tls.StackSlots() != 0 {
		t.Errorf("%d stack slots in use", i.tls.StackSlots())
	}
}

// A native function that counts nothing is ended through its heap.
func TestLongNativesAreAbandoned(t *testing.T) {
	i, _ := newTest(t, newEngine(t), `const text = "[" + '"aaaaaaa",'.repeat(1_000_000) + "1]"; () => JSON.parse(text).length`, 512<<20)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := i.Call(ctx, js.Call{})
	if !errors.Is(err, js.ErrStopped) {
		t.Errorf("error %v", err)
	}
	if i.Usable() {
		t.Error("still usable")
	}
}

// A context that ends just when the call does must leave the isolate fit for
// the next call, or unusable; never stuck and never stopped by mistake.
func TestContextEndsWithTheCall(t *testing.T) {
	e := newEngine(t)
	i, _ := newTest(t, e, `() => 1`, 16<<20)
	for n := range 2000 / slower {
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
			i, _ = newTest(t, e, `() => 1`, 16<<20)
		}
		if reply, err := i.Call(t.Context(), js.Call{}); err != nil || string(reply.Payload) != "1" {
			t.Fatalf("reply %q, %v", reply.Payload, err)
		}
	}
}

// A call that comes back by itself, but long after its context ended, must not
// spoil the next one.
func TestCallThatComesBackLate(t *testing.T) {
	i, _ := newTest(t, newEngine(t), `() => { console.log("x"); return 1 }`, 16<<20)
	ctx, cancel := context.WithCancel(t.Context())
	i.print = func(int, string) {
		for cancel(); !i.heap.abandoned.Load(); {
			runtime.Gosched()
		}
	}
	if _, err := i.Call(ctx, js.Call{}); err != nil && !errors.Is(err, js.ErrStopped) {
		t.Error(err)
	}
	if i.Usable() {
		t.Error("usable with an abandoned heap")
	}
}

func TestPanicsOfThePrintFunctionPass(t *testing.T) {
	i, _ := newTest(t, newEngine(t), `() => console.log("x")`, 16<<20)
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
	for memory := int64(minMemory); memory < minMemory+600_000; memory += 20_011 * slower {
		iso, err := e.New(t.Context(), js.Source{Name: "t.js", Code: []byte(code), Info: `{"env":{}}`, Memory: memory, Print: func(int, string) {}})
		if errors.Is(err, js.ErrMemory) {
			continue
		}
		if err != nil {
			t.Fatalf("load with %d bytes: %v", memory, err)
		}
		for n := range 12 {
			payload := []byte(strings.Repeat("x", 1<<n))
			_, err := iso.Call(t.Context(), js.Call{Subject: "s", Payload: payload, Header: `{"a":["b"]}`})
			if err != nil && !errors.Is(err, js.ErrMemory) {
				t.Errorf("call with %d bytes of memory and %d of payload: %v", memory, len(payload), err)
			}
			if !iso.Usable() {
				break
			}
		}
		iso.Close()
	}
}

func TestHeapLimit(t *testing.T) {
	h := newHeap(1 << 20)
	defer h.free()
	var blocks []uintptr
	for n := 1; ; n = n*3/2 + 1 {
		p := h.get(n)
		if p == 0 {
			break
		}
		blocks = append(blocks, p)
	}
	if !h.exhausted || h.used > h.limit || h.used < h.limit/4 {
		t.Errorf("used %d of %d, exhausted %t", h.used, h.limit, h.exhausted)
	}
	for _, p := range blocks {
		h.put(p)
	}
	if h.used != 0 || len(h.large) != 0 {
		t.Errorf("%d bytes and %d large blocks left", h.used, len(h.large))
	}
	if h.get(-1) != 0 || h.get(math.MaxInt) != 0 {
		t.Error("an absurd size was allocated")
	}
}

func TestHeapResizeKeepsTheContents(t *testing.T) {
	for _, from := range []int{1, 100, 5000, 20_000, 65_472, 65_504, 65_536, 200_000} {
		for _, to := range []int{1, 100, 5000, 20_000, 65_473, 65_505, 65_537, 131_008, 131_040, 500_000} {
			t.Run(fmt.Sprint(from, " to ", to), func(t *testing.T) {
				h := newHeap(1 << 20)
				defer h.free()
				p := h.get(from)
				guard := h.get(from)
				for n := range bytesAt(p, from) {
					bytesAt(p, from)[n] = byte(n % 251)
				}
				q := h.resize(p, to)
				if h.size(q) < to {
					t.Fatalf("a block of %d bytes", h.size(q))
				}
				for n, b := range bytesAt(q, min(from, to)) {
					if b != byte(n%251) {
						t.Fatalf("byte %d is %d", n, b)
					}
				}
				clear(bytesAt(q, h.size(q))) // all that is counted must be there
				h.put(q)
				h.put(guard)
				if h.used != 0 || len(h.large) != 0 {
					t.Errorf("%d bytes and %d large blocks left", h.used, len(h.large))
				}
			})
		}
	}
}

func TestHeapResizePastTheLimit(t *testing.T) {
	h := newHeap(100_000)
	defer h.free()
	p := h.get(70_000)
	bytesAt(p, 1)[0] = 7
	if h.resize(p, 110_000) != 0 || !h.exhausted || bytesAt(p, 1)[0] != 7 {
		t.Error("a block grew past the limit, or was lost")
	}
	h.put(p)
	if h.used != 0 {
		t.Errorf("%d bytes left", h.used)
	}
}
