package js_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"nex"
	"nex/internal/runtime"
	"nex/internal/runtime/js"
)

func TestReply(t *testing.T) {
	tests := []struct{ name, code, want string }{
		{"payload", `(s, p) => p`, "\x00\xffpay"},
		{"subarray", `(s, p) => p.subarray(1, 3)`, "\xffp"},
		{"buffer", `(s, p) => p.buffer`, "\x00\xffpay"},
		{"transferred buffer", `(s, p) => p.buffer.transfer(7)`, "\x00\xffpay\x00\x00"},
		{"resizable buffer", `() => { const b = new ArrayBuffer(4, {maxByteLength: 8}); b.resize(2); return b }`, "\x00\x00"},
		{"shared buffer", `() => new SharedArrayBuffer(2)`, "\x00\x00"},
		{"wide array", `() => new Uint16Array([0x6261, 0x6463]).subarray(1)`, "cd"},
		{"data view", `(s, p) => new DataView(p.buffer, 2, 2)`, "pa"},
		{"empty array", `() => new Uint8Array(0)`, ""},
		{"string", `() => 'say "hé 🦊"'`, `say "hé 🦊"`},
		{"built string", `() => { let s = ""; for (let i = 0; i < 9999; i++) s += "ab"; return s }`, strings.Repeat("ab", 9999)},
		{"lone surrogate", `() => "a\ud800b\udc00\ud83e\udd8a"`, "a\ufffdb\ufffd🦊"},
		{"string with NUL", `() => "a\0b"`, "a\x00b"},
		{"undefined", `() => {}`, ""},
		{"null", `() => null`, ""},
		{"number", `() => 42`, "42"},
		{"not a number", `() => NaN`, "null"},
		{"boolean", `() => false`, "false"},
		{"object", `() => ({a: [1, "é", null]})`, `{"a":[1,"é",null]}`},
		{"array", `() => [1, 2]`, `[1,2]`},
		{"date", `() => new Date(0)`, `"1970-01-01T00:00:00.000Z"`},
		{"string object", `() => new String("x")`, `"x"`},
		{"toJSON", `() => ({toJSON: () => 7})`, `7`},
		{"proxy", `() => new Proxy({a: 1}, {})`, `{"a":1}`},
		{"async", `async (s, p) => { await null; return p }`, "\x00\xffpay"},
		{"async object", `async () => ({a: 1})`, `{"a":1}`},
		{"promise of promise", `() => Promise.resolve(new Promise((r) => r("x")))`, "x"},
		{"late promise", `() => new Promise((r) => Promise.resolve().then(() => r("late")))`, "late"},
		{"thenable", `() => ({then: (done) => done("then")})`, "then"},
		{"thenable of thenable", `() => ({then: (a) => a({then: (b) => b(1)})})`, "1"},
		{"caught rejection", `() => Promise.reject(new Error("x")).catch((e) => e.message)`, "x"},
		{"sloppy this", `(function () { return this === globalThis })`, "true"},
		{"strict this", `(function () { "use strict"; return this === globalThis })`, "true"},
		{"arrow this", `() => this === globalThis`, "true"},
		{"same realm", `(s, p) => p instanceof Uint8Array && Object.getPrototypeOf(p) === Uint8Array.prototype`, "true"},
		{"whole buffer", `(s, p) => [p.byteOffset, p.buffer.byteLength]`, "[0,5]"},
		{"tampered JSON", `JSON.stringify = () => "no"; () => ({a: 1})`, `{"a":1}`},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				load(t, e, tt.code).wantReply(t, "s", "\x00\xffpay", tt.want)
			})
		}
	})
}

func TestBadReply(t *testing.T) {
	tests := []struct{ name, code, want string }{
		{"bigint", `() => 10n`, "BigInt"},
		{"bigint inside", `() => ({a: 10n})`, "BigInt"},
		{"cycle", `() => { const a = {}; a.a = a; return a }`, "circular"},
		{"function", `() => () => 1`, "it is a function"},
		{"symbol", `() => Symbol("x")`, "it is a symbol"},
		{"throwing toJSON", `() => ({toJSON() { throw new Error("not me") }})`, "Error: not me"},
		{"throwing getter", `async () => ({get a() { throw new RangeError("no a") }})`, "RangeError: no a"},
		{"detached", `(s, p) => { p.buffer.transfer(); return p }`, "detached"},
		{"detached buffer", `(s, p) => { const b = p.buffer; b.transfer(); return b }`, "detached"},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				_, err := load(t, e, tt.code).call("s", "payload")
				wantCode(t, err, nex.BadReply)
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %q does not say %q", err, tt.want)
				}
			})
		}
	})
}

func TestContext(t *testing.T) {
	const code = `(subject, payload, ctx) => ({
		subject: ctx.subject === subject, reply: ctx.reply, headers: ctx.headers, again: ctx.headers === ctx.headers,
		env: ctx.env, frozen: Object.isFrozen(ctx.env), about: [ctx.namespace, ctx.workload, ctx.id],
		deadline: ctx.deadline, payload: ctx.payload === payload, text: ctx.text(), json: ctx.json(),
	})`
	type answer struct {
		Subject, Again, Frozen, Payload bool
		Reply, Text                     string
		Headers                         map[string][]string
		Env                             map[string]string
		About                           []string
		Deadline                        float64
		JSON                            []int
	}
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, code, func(o *js.Options) {
			o.Env = map[string]string{"KEY": "välue", "__proto__": "x"}
			o.Namespace, o.Workload, o.ID = "ns", "wl", "id1"
		})
		deadline := time.Now().Add(callTime).Truncate(time.Millisecond)
		ctx, cancel := context.WithDeadline(t.Context(), deadline)
		defer cancel()
		headers := map[string][]string{"A": {"1", "2"}, "Ü": {""}}
		reply, err := f.Invoke(ctx, runtime.Trigger{Subject: "a.b", Reply: "_INBOX.1", Header: headers, Payload: []byte(" [1, 2]")})
		if err != nil {
			t.Fatal(err)
		}
		var got answer
		if err := json.Unmarshal(reply.Payload, &got); err != nil {
			t.Fatal(err)
		}
		want := answer{
			Subject: true, Again: true, Frozen: true, Payload: true, Reply: "_INBOX.1", Text: " [1, 2]", Headers: headers,
			Env: map[string]string{"KEY": "välue", "__proto__": "x"}, About: []string{"ns", "wl", "id1"},
			Deadline: float64(deadline.UnixMilli()), JSON: []int{1, 2},
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("context\n%+v, want\n%+v", got, want)
		}
	})
}

func TestContextWithoutAnything(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, `(s, p, ctx) => [s, ctx.reply, ctx.headers, ctx.deadline === Infinity, ctx.env, ctx.text()]`)
		reply, err := f.Invoke(context.Background(), runtime.Trigger{})
		if want := `["","",{},true,{},""]`; err != nil || string(reply.Payload) != want {
			t.Errorf("reply %s, %v; want %s", reply.Payload, err, want)
		}
	})
}

func TestWarmState(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, `let calls = 0; const kept = []; (s, p) => { kept.push(p.slice()); return [++calls, kept[0][0]] }`,
			func(o *js.Options) { o.MaxConcurrency = 1 })
		for i := 1; i <= 3; i++ {
			f.wantReply(t, "s", string(rune('A'+i)), fmt.Sprintf("[%d,66]", i))
		}
	})
}

func TestLargePayloads(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, `(s, p) => p`)
		for _, n := range []int{1, 4096, 64 << 10, 1 << 20, 1<<20 + 1} {
			payload := make([]byte, n)
			if _, err := rand.Read(payload); err != nil {
				t.Fatal(err)
			}
			reply, err := f.Invoke(t.Context(), runtime.Trigger{Subject: "s", Payload: payload})
			if err != nil || !bytes.Equal(reply.Payload, payload) {
				t.Errorf("%d bytes came back as %d other bytes, %v", n, len(reply.Payload), err)
			}
		}
	})
}

func TestConcurrentCalls(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, `async (s, p, ctx) => {
			const at = new Date(Date.now()).toString().length > 0 && Math.random() < 1;
			await null;
			return s + ctx.text() + /^[a-z]+\d/.test(s) + at;
		}`)
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				f.wantReply(t, fmt.Sprint("s", i), fmt.Sprint("p", i), fmt.Sprintf("s%dp%dtruetrue", i, i))
			})
		}
		wg.Wait()
	})
}

func FuzzEcho(f *testing.F) {
	f.Add("subject", []byte("payload"), "key", "value")
	f.Add("\xff", []byte{0, 0xff}, "\x00", "\xed\xa0\x80")
	var bytesOf, textOf []fixture
	for _, e := range engines(f) {
		bytesOf = append(bytesOf, load(f, e, `(s, p) => p`))
		textOf = append(textOf, load(f, e, `(s, p, ctx) => new TextEncoder().encode(s + ctx.text() + JSON.stringify(ctx.headers))`))
	}
	f.Fuzz(func(t *testing.T, subject string, payload []byte, key, value string) {
		trigger := runtime.Trigger{Subject: subject, Payload: payload, Header: map[string][]string{key: {value}}}
		for _, fn := range bytesOf {
			if reply, err := fn.Invoke(t.Context(), trigger); err != nil || !bytes.Equal(reply.Payload, payload) {
				t.Errorf("payload %q came back as %q, %v", payload, reply.Payload, err)
			}
		}
		for _, fn := range textOf {
			reply, err := fn.Invoke(t.Context(), trigger)
			text := reply.Payload
			if err != nil || !utf8.Valid(text) {
				t.Errorf("text %q, %v", text, err)
			}
			if want := legible(subject); !strings.HasPrefix(legible(string(text)), want) {
				t.Errorf("text %q does not begin with the subject %q", text, want)
			}
		}
	})
}

// legible returns the characters of text that are no errors.
func legible(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, ""), "\ufffd", "")
}

func BenchmarkInvoke(b *testing.B) {
	const item = `{"sku":"A-1001","count":3,"price":9.99,"tags":["x","y"]}`
	order := []byte(`{"id":17,"customer":{"name":"Erika Mustermann","city":"Köln"},"items":[` + item + strings.Repeat(","+item, 6) + `],"total":1}`)
	for _, kind := range []struct {
		name, code string
		payload    []byte
	}{
		{"16B", `(subject, payload) => payload`, make([]byte, 16)},
		{"64KiB", `(subject, payload) => payload`, make([]byte, 64<<10)},
		{"json", `(subject, payload, ctx) => { const order = ctx.json(); order.total = 2; return order }`, order},
		{"async", `async (subject, payload) => { await 0; await 0; return payload }`, make([]byte, 16)},
	} {
		for name, e := range engines(b) {
			b.Run(kind.name+"/"+name, func(b *testing.B) {
				f := load(b, e, kind.code)
				ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
				defer cancel()
				t := runtime.Trigger{Subject: "js.echo", Reply: "_INBOX.1", Payload: kind.payload}
				b.SetBytes(int64(len(kind.payload)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := f.Invoke(ctx, t); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for name, e := range engines(b) {
		b.Run(name, func(b *testing.B) {
			o := js.Options{Name: "echo.js", Code: []byte(`(subject, payload) => payload`), Log: (&recorder{}).log}
			for b.Loop() {
				f, err := js.Load(b.Context(), e, o)
				if err != nil {
					b.Fatal(err)
				}
				if err := f.Close(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
