package js_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nex"
	"nex/internal/nextest"
	"nex/internal/runtime"
	"nex/internal/runtime/js"
)

// fakeHost is a node with one bucket, one object store, and everything else
// answered by what was asked.
type fakeHost struct {
	mu     sync.Mutex
	values map[string][]byte // guarded by mu
	slow   chan struct{}     // holds up whoever gets the key "slow", or asks the subject
}

func newFakeHost() *fakeHost {
	return &fakeHost{values: map[string][]byte{}, slow: make(chan struct{})}
}

func (h *fakeHost) Call(ctx context.Context, service, method string, m runtime.Message) (runtime.Message, error) {
	if m.Args["key"] == "slow" || m.Args["subject"] == "slow" {
		select {
		case <-h.slow:
		case <-ctx.Done():
			return runtime.Message{}, nex.Errorf(nex.Timeout, "no answer in time")
		}
	}
	switch service {
	case "kv", "objectstore":
		return h.store(service, method, m)
	case "messaging", "http":
		return h.mirror(service, method, m)
	}
	return runtime.NoHost{}.Call(ctx, service, method, m)
}

func (h *fakeHost) store(service, method string, m runtime.Message) (runtime.Message, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := m.Args["key"] + m.Args["name"]
	value, ok := h.values[service+key]
	switch method {
	case "get":
		if !ok {
			return runtime.Message{}, nex.Errorf(nex.NotFound, "key not found")
		}
		return runtime.Message{Payload: value}, nil
	case "set", "put":
		h.values[service+key] = m.Payload
		return runtime.Message{Args: map[string]string{"revision": "1"}, Payload: fmt.Appendf(nil, `{"name":%q,"size":%d}`, key, len(m.Payload))}, nil
	case "delete":
		delete(h.values, service+key)
		return runtime.Message{}, nil
	}
	keys := []string{}
	for _, k := range slices.Sorted(maps.Keys(h.values)) {
		if k, mine := strings.CutPrefix(k, service); mine {
			keys = append(keys, k)
		}
	}
	list, err := json.Marshal(keys)
	return runtime.Message{Payload: list}, err
}

// mirror answers with what it was asked.
func (h *fakeHost) mirror(service, method string, m runtime.Message) (runtime.Message, error) {
	if m.Args["url"] == "http://denied.test/" || m.Args["subject"] == "denied" {
		return runtime.Message{}, nex.Errorf(nex.Denied, "not allowed")
	}
	asked, err := json.Marshal(struct {
		Asked  string              `json:"asked"`
		Args   map[string]string   `json:"args"`
		Header map[string][]string `json:"headers"`
		Body   string              `json:"body"`
	}{service + "." + method, m.Args, m.Header, string(m.Payload)})
	answer := runtime.Message{Payload: asked}
	switch {
	case service == "http":
		answer.Args = map[string]string{"status": "201", "url": m.Args["url"]}
		answer.Header = map[string][]string{"X-Multi": {"a", "b"}}
		if method == "head" {
			answer.Payload = nil
		}
	case method == "requestMany":
		answer.Payload = nil
		for _, reply := range []string{"one", "", "three"} {
			answer.Payload = binary.BigEndian.AppendUint32(answer.Payload, uint32(len(reply)))
			answer.Payload = append(answer.Payload, reply...)
		}
	}
	return answer, err
}

// services is a function whose body is given.
func services(body string) string {
	return `const { kv, objectStore, messaging, http } = hostServices;
const text = (bytes) => new TextDecoder().decode(bytes);
const caught = async (f) => { try { return await f() } catch (e) { return [e instanceof Error, e.name, e.code, e.status, e.message] } };
async (subject, payload, ctx) => {` + body + `}`
}

func withHost(h runtime.Host) func(*js.Options) { return func(o *js.Options) { o.Host = h } }

func TestHostServices(t *testing.T) {
	tests := []struct{ name, body, want string }{
		{"set and get", `kv.set("k", payload); return kv.get("k")`, `pay`},
		{"get is bytes", `kv.set("k", payload); const v = kv.get("k"); return v instanceof Uint8Array && v.constructor === Uint8Array && v.byteOffset`, `0`},
		{"through this", `return ((k) => { globalThis.hostServices.kv.set(k, "v"); return hostServices === globalThis.hostServices && text(kv.get(k)) })("k")`, `v`},
		{"awaitable", `await kv.set("k", "v"); return text(await kv.get("k"))`, `v`},
		{"promises", `await kv.setAsync("k", "v"); return text(await kv.getAsync("k"))`, `v`},
		{"many promises", `await Promise.all(Array.from({length: 200}, (_, i) => kv.setAsync("n" + i, "v" + i))); const all = await Promise.all(Array.from({length: 200}, (_, i) => kv.getAsync("n" + i))); return all.every((v, i) => text(v) === "v" + i)`, `true`},
		{"too many promises", `return (await Promise.allSettled(Array.from({length: 300}, (_, i) => kv.setAsync("n" + i, "")))).filter((r) => r.reason?.code === "overloaded").length`, `44`},
		{"values", `kv.set("a", {b: [1, null]}); kv.set("c", new Uint8Array([1, 2, 3]).subarray(1)); kv.set("d", new Uint16Array([65]).buffer); kv.set("e", 7); return [text(kv.get("a")), [...kv.get("c")], text(kv.get("d")), text(kv.get("e"))]`, `["{\"b\":[1,null]}",[2,3],"A\u0000","7"]`},
		{"all bytes", `const all = Uint8Array.from({length: 256}, (_, i) => i); kv.set("k", all); const back = kv.get("k"); return back.length === 256 && back.every((b, i) => b === i)`, `true`},
		{"delete and keys", `kv.set("a", "1"); kv.set("b", "2"); kv.delete("a"); return kv.keys()`, `["b"]`},
		{"no keys", `return kv.keysAsync()`, `[]`},
		{"missing", `return caught(() => kv.get("none"))`, `[true,"Error","not_found",404,"key not found"]`},
		{"missing, promised", `return caught(() => kv.getAsync("none"))`, `[true,"Error","not_found",404,"key not found"]`},
		{"no key", `return caught(() => kv.get())`, `[true,"Error","invalid",400,"key is required"]`},
		{"no value", `return caught(() => kv.setAsync("k"))`, `[true,"Error","invalid",400,"key and value are required"]`},
		{"NUL in a key", `return caught(() => kv.get("a\0b"))`, `[true,"Error","invalid",400,"\"a\\u0000b\" has a NUL"]`},
		{"empty texts", `kv.set("", "v"); return [text(kv.get("")), messaging.request("a", "", {headers: {A: ""}}) instanceof Uint8Array]`, `["v",true]`},
		{"no form", `return caught(() => kv.set("k", () => 1))`, `[true,"Error","invalid",400,"a function cannot be sent: give a string, bytes, or what has a JSON form"]`},
		{"objects", `const info = objectStore.put("o", "hello"); return [info, text(objectStore.get("o")), objectStore.list(), objectStore.delete("o"), objectStore.list()]`, `[{"name":"o","size":5},"hello",["o"],null,[]]`},
		{"no options", `messaging.publish("a.b", "x", null); return messaging.request("a.b", "x", null).length > 0`, `true`},
		{"publish", `return messaging.publish("a.b", "x") === undefined`, `true`},
		{"request", `return messaging.request("a.b", "x", {headers: {A: ["1", 2]}, timeout: 5.5})`, `{"asked":"messaging.request","args":{"subject":"a.b","timeout_ms":"6"},"headers":{"A":["1","2"]},"body":"x"}`},
		{"many replies", `return messaging.requestMany("a", "x").map(text)`, `["one","","three"]`},
		{"denied", `return caught(() => messaging.request("denied", ""))`, `[true,"Error","denied",403,"not allowed"]`},
		{"http", `return http.get("http://a.test/b?c=d")`, `{"status":201,"headers":{"X-Multi":"a, b"},"response":"{\"asked\":\"http.get\",\"args\":{\"url\":\"http://a.test/b?c=d\"},\"headers\":null,\"body\":\"\"}"}`},
		{"http with options", `const { args, headers } = http.del("http://a.test/b?c=d", {query: {e: "f g"}, headers: {X: "y"}, timeout: 100, redirect: "manual"}).json(); return [args, headers]`, `[{"redirect":"manual","timeout_ms":"100","url":"http://a.test/b?c=d&e=f+g"},{"X":["y"]}]`},
		{"http bodies", `return ["text", {a: 1}, payload].map((body) => { const { asked, headers, body: sent } = http.post("http://a.test/", body).json(); return [asked, headers?.["Content-Type"], sent] })`, `[["http.post",["text/plain;charset=UTF-8"],"text"],["http.post",["application/json"],"{\"a\":1}"],["http.post",null,"pay"]]`},
		{"http names", `return ["get", "post", "put", "patch", "del", "delete"].map((name) => http[name]("http://a.test/", "x").json().asked)`, `["http.get","http.post","http.put","http.patch","http.delete","http.delete"]`},
		{"http head", `return http.head("http://a.test/")`, `{"status":201,"headers":{"X-Multi":"a, b"}}`},
		{"fetch", `const r = await fetch("http://a.test/b", {method: "POST", body: "x", headers: {A: "b"}}); return [r.status, r.ok, r.url, r.redirected, r.headers.get("x-multi"), await r.json(), r.bodyUsed, r instanceof Response]`,
			`[201,true,"http://a.test/b",false,"a, b",{"asked":"http.post","args":{"url":"http://a.test/b"},"headers":{"Content-Type":["text/plain;charset=UTF-8"],"a":["b"]},"body":"x"},true,true]`},
		{"fetch refused", `return caught(() => fetch("http://denied.test/"))`, `[true,"TypeError","denied",403,"fetch failed: not allowed"]`},
		{"fetch of no URL", `return (await caught(() => fetch("nonsense")))[1]`, `TypeError`},
		{"fetch aborted", `const c = new AbortController(); setTimeout(() => c.abort(), 1); kv.set("x", ""); const waits = kv.getAsync("slow"); return (await caught(() => Promise.race([waits, new Promise((_, no) => c.signal.addEventListener("abort", () => no(c.signal.reason)))])))[1]`, `AbortError`},
		{"fetch after the abort", `return (await caught(() => fetch("http://a.test/", {signal: AbortSignal.abort()})))[1]`, `AbortError`},
		{"timers go on meanwhile", `const got = []; const waits = kv.getAsync("slow"); setTimeout(() => got.push(1), 1); await new Promise((done) => setTimeout(done, 5)); return got`, `[1]`},
		{"replies read once", `const r = new Response("x"); await r.text(); return (await caught(() => r.text()))[1]`, `TypeError`},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				load(t, e, services(tt.body), withHost(newFakeHost())).wantReply(t, "s", "pay", tt.want)
			})
		}
	})
}

func TestNoHostServices(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		load(t, e, services(`return caught(() => kv.get("k"))`)).wantReply(t, "s", "", `[true,"Error","unsupported",501,"No such host service: kv"]`)
	})
}

func TestLargeHostValues(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, services(`objectStore.put("o", payload); return objectStore.get("o")`), withHost(newFakeHost()))
		large := string(bytes.Repeat([]byte{0, 127, 128, 255}, 2<<20))
		if got, err := f.call("s", large); err != nil || got != large {
			t.Errorf("%d bytes came back, %v", len(got), err)
		}
	})
}

// A call that is stopped while a host service does not answer is answered at
// once, and the host call ends with it.
func TestStoppedInHostCall(t *testing.T) {
	for name, body := range map[string]string{
		"waiting":  `kv.get("slow"); return "answered"`,
		"promised": `await kv.getAsync("slow"); return "answered"`,
		"caught":   `for (;;) try { kv.get("slow") } catch {}`,
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, e js.Engine) {
				f := load(t, e, services(body), withHost(newFakeHost()))
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				begin := time.Now()
				_, err := f.Invoke(ctx, runtime.Trigger{})
				wantCode(t, err, nex.Timeout)
				if took := time.Since(begin); took > nextest.Patience {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
}

// What a call begins and does not wait for ends with it, and the next one does
// not get its answer.
func TestHostCallsThatNobodyWaitsFor(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		h := newFakeHost()
		f := load(t, e, services(`
			if (subject === "begin") { kv.getAsync("slow").then(() => console.log("late")); return "begun" }
			return text(await kv.setAsync("k", "v").then(() => kv.getAsync("k")))`), withHost(h), func(o *js.Options) { o.MaxConcurrency = 1 })
		f.wantReply(t, "begin", "", "begun")
		close(h.slow)
		f.wantReply(t, "again", "", "v")
		if records := f.take(); len(records) > 0 {
			t.Errorf("logged %v", records)
		}
	})
}

func BenchmarkHostCall(b *testing.B) {
	for name, e := range engines(b) {
		for _, form := range []string{"get", "await getAsync"} {
			form := strings.Replace(form, "get", "kv.get", 1)
			if form == "await getAsync" {
				form = "await kv.getAsync"
			}
			b.Run(name+"/"+form, func(b *testing.B) {
				f := load(b, e, services(`kv.set("k", "v"); for (let n = Number(ctx.text()); n > 0; n--) `+form+`("k")`), withHost(newFakeHost()))
				if _, err := f.call("s", fmt.Sprint(b.N)); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
