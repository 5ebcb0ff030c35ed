package js_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"nex"
	"nex/internal/nextest"
	"nex/internal/runtime"
	"nex/internal/runtime/js"
)

// gate is a host whose values are their keys, and which answers when it is
// opened.
type gate struct {
	began chan string   // the key of each call
	ended chan string   // and that its context ended, before the gate was opened
	open  chan struct{} // closed when it is
}

func newGate() *gate {
	return &gate{began: make(chan string, 1000), ended: make(chan string, 1000), open: make(chan struct{})}
}

func (g *gate) Call(ctx context.Context, _, _ string, m runtime.Message) (runtime.Message, error) {
	g.began <- m.Args["key"]
	select {
	case <-g.open:
		return runtime.Message{Payload: []byte(m.Args["key"])}, nil
	case <-ctx.Done():
		g.ended <- m.Args["key"]
		return runtime.Message{}, nex.Errorf(nex.Timeout, "no answer in time")
	}
}

// one has a function run in one isolate, with that host, and printed get what
// it prints.
func one(h runtime.Host, printed chan string) func(*js.Options) {
	return func(o *js.Options) {
		o.MaxConcurrency, o.Host = 1, h
		o.Log = func(_ slog.Level, text string) { printed <- text }
	}
}

// await returns what comes of c.
func await[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(nextest.Patience):
		t.Fatal("it does not come")
	}
	return v
}

// result is how a call ended.
type result struct {
	runtime.Reply
	err error
}

// begin calls f with a deadline.
func (f fixture) begin(patience time.Duration, subject, payload string) <-chan result {
	done := make(chan result, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		reply, err := f.Invoke(ctx, runtime.Trigger{Subject: subject, Reply: "to." + subject, Payload: []byte(payload)})
		done <- result{reply, err}
	}()
	return done
}

const sharing = pause + `const { kv } = hostServices; const text = (b) => new TextDecoder().decode(b);
let open = false, calls = 0, settle;
async (subject, payload, ctx) => { calls++; `

// All that wait are in one isolate, other calls run meanwhile, and each is
// answered with what is its own.
func TestWaitsShareAnIsolate(t *testing.T) {
	const many = 50
	for name, body := range map[string]string{
		"host service": `console.log("waits"); const value = text(await kv.getAsync(subject));`,
		"timer":        `console.log("waits"); while (!open) await pause(1); const value = subject;`,
		"both":         `console.log("waits"); const [value] = await Promise.all([kv.getAsync(subject).then(text), pause(20)]);`,
		"one by one":   `console.log("waits"); await pause(5); let value = text(await kv.getAsync(subject)); await pause(5); value = text(await kv.getAsync(value));`,
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, e js.Engine) {
				g, printed := newGate(), make(chan string, 2*many)
				f := load(t, e, sharing+`
					if (subject === "open") { open = true; return calls }
					`+body+`
					await pause(3);
					return ctx.respond([value, ctx.subject, ctx.reply, text(payload), ctx.text()].join(), { headers: { own: subject } })
				}`, one(g, printed))
				var all []<-chan result
				for n := range many {
					all = append(all, f.begin(callTime, fmt.Sprint("call", n), strings.Repeat("p", 10_000)+fmt.Sprint(n)))
				}
				for range many {
					await(t, printed)
				}
				f.wantReply(t, "open", "", fmt.Sprint(many+1))
				close(g.open)
				for n, done := range all {
					r := await(t, done)
					own, payload := fmt.Sprint("call", n), strings.Repeat("p", 10_000)+fmt.Sprint(n)
					if want := strings.Join([]string{own, own, "to." + own, payload, payload}, ","); r.err != nil || string(r.Payload) != want {
						t.Errorf("call %d: %.60q, %v", n, r.Payload, r.err)
					}
					if got := r.Header["own"]; !slices.Equal(got, []string{own}) {
						t.Errorf("call %d has the headers %v", n, r.Header)
					}
				}
			})
		})
	}
}

// A call may wait for what another one does, also when that has ended; and what
// is left never settles.
func TestCallsSettleEachOther(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		g, printed := newGate(), make(chan string, 10)
		f := load(t, e, sharing+`
			switch (subject) {
			case "begin": settle = kv.getAsync("shared").then(text); return "begun";
			case "share": console.log("shares"); return await settle;
			case "stay": return text(await kv.getAsync("stay"));
			case "never": console.log("hopes"); await new Promise((done) => { settle = done }); return "settled";
			case "settle": settle(); return "done";
			}
		}`, one(g, printed))
		stays := f.begin(callTime, "stay", "")
		await(t, g.began)

		hopes := f.begin(callTime, "never", "")
		await(t, printed)
		f.wantReply(t, "settle", "", "done")
		if r := await(t, hopes); r.err != nil || string(r.Payload) != "settled" {
			t.Errorf("reply %q, %v", r.Payload, r.err)
		}

		never := f.begin(callTime, "never", "")
		await(t, printed)
		f.wantReply(t, "begin", "", "begun") // and it ends before the answer comes
		shares := f.begin(callTime, "share", "")
		await(t, printed)
		close(g.open)
		if r := await(t, stays); r.err != nil || string(r.Payload) != "stay" {
			t.Errorf("reply %q, %v", r.Payload, r.err)
		}
		if r := await(t, shares); r.err != nil || string(r.Payload) != "shared" {
			t.Errorf("reply %q, %v", r.Payload, r.err)
		}
		if r := await(t, never); nex.CodeOf(r.err) != nex.Exception || r.err.Error() != js.ErrNeverSettles.Error() {
			t.Errorf("error %v", r.err)
		}
		f.wantReply(t, "begin", "", "begun") // the isolate is as good as before
	})
}

// A call that spoils its isolate ends those that wait there, with an error that
// says so, and the next call gets a new one.
func TestSpoiledIsolatesEndAllTheirCalls(t *testing.T) {
	for name, tt := range map[string]struct {
		body string
		code nex.Code
	}{
		"loop":           {`for (;;) {}`, nex.Timeout},
		"loop later":     {`await pause(1); for (;;) {}`, nex.Timeout},
		"memory":         {`const a = []; for (;;) a.push({a})`, nex.OutOfMemory},
		"memory later":   {`await pause(1); const a = []; for (;;) a.push({a})`, nex.OutOfMemory},
		"panic":          {`console.log("panic")`, nex.Internal},
		"a job for ever": {`const f = () => void Promise.resolve().then(f); f(); return "done"`, nex.Timeout},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, e js.Engine) {
				g := newGate()
				f := load(t, e, sharing+`
					if (subject === "count") return calls;
					if (subject === "wait") return text(await kv.getAsync("wait"));
					`+tt.body+` }`, one(g, nil), func(o *js.Options) {
					o.MemoryLimit = 8 << 20
					o.Log = func(slog.Level, string) { panic("of the log") }
				})
				var all []<-chan result
				for range 5 {
					all = append(all, f.begin(callTime, "wait", ""))
					await(t, g.began)
				}
				patience := callTime
				if tt.code == nex.Timeout {
					patience = 100 * time.Millisecond
				}
				wantCode(t, await(t, f.begin(patience, "spoil", "")).err, tt.code)
				for _, done := range all {
					r := await(t, done)
					wantCode(t, r.err, nex.Unavailable)
					if r.err != nil && !strings.HasPrefix(r.err.Error(), "another call of this function ended its isolate: ") {
						t.Errorf("error %q", r.err)
					}
					await(t, g.ended) // the host call with it
				}
				f.wantReply(t, "count", "", "1")
			})
		})
	}
}

// A call that is late while it waits is answered at once and disturbs nobody,
// but its isolate goes when the others have ended.
func TestLateCallsDisturbNobody(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		g, printed := newGate(), make(chan string, 10)
		f := load(t, e, sharing+`
			if (subject === "count") return calls;
			console.log("waits");
			return text(await kv.getAsync(subject)) + calls }`, one(g, printed))
		stays := f.begin(callTime, "stay", "")
		await(t, printed)
		for _, late := range []<-chan result{f.begin(200*time.Millisecond, "late", ""), f.begin(200*time.Millisecond, "late", "")} {
			r := await(t, late)
			wantCode(t, r.err, nex.Timeout)
		}
		next := f.begin(callTime, "count", "")
		select {
		case r := <-next:
			t.Errorf("a call came to the late ones: %q, %v", r.Payload, r.err)
		case r := <-stays:
			t.Errorf("it was disturbed: %q, %v", r.Payload, r.err)
		case <-time.After(50 * time.Millisecond):
		}
		close(g.open)
		if r := await(t, stays); r.err != nil || !strings.HasPrefix(string(r.Payload), "stay") {
			t.Errorf("reply %q, %v", r.Payload, r.err)
		}
		if r := await(t, next); r.err != nil || string(r.Payload) != "1" {
			t.Errorf("reply %q, %v", r.Payload, r.err)
		}
	})
}

// What calls began and did not wait for goes on as long as other calls are in the
// isolate, but not much longer than those that were there.
func TestWhatCallsForget(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		g, printed := newGate(), make(chan string, 10)
		f := load(t, e, sharing+`
			switch (subject) {
			case "begin": kv.getAsync("alone"); return "begun";
			case "first": settle = 0; console.log("first"); return await pause(300, "first");
			case "forget": kv.getAsync("forgotten"); setInterval(() => settle++, 1); pause(1e9); return "begun";
			case "stay": console.log("stays"); for (let n = -1; n !== settle;) { n = settle; await pause(300) } return "over";
			}
		}`, one(g, printed))
		f.wantReply(t, "begin", "", "begun")
		await(t, g.began)
		if got := await(t, g.ended); got != "alone" {
			t.Errorf("%s ended", got)
		}
		first := f.begin(time.Second, "first", "")
		await(t, printed)
		forget := f.begin(time.Second, "forget", "")
		await(t, g.began)
		stays := f.begin(nextest.Patience, "stay", "")
		await(t, printed)
		for want, done := range map[string]<-chan result{"first": first, "begun": forget, "over": stays} {
			if r := await(t, done); r.err != nil || string(r.Payload) != want {
				t.Errorf("reply %q, %v; want %s", r.Payload, r.err, want)
			}
		}
		if got := await(t, g.ended); got != "forgotten" {
			t.Errorf("%s ended", got)
		}
	})
}

// Calls that wait share the memory of their isolate: where they need a good part
// of it, no more come to them.
func TestCallsThatNeedMemoryDoNotMeet(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		g, printed := newGate(), make(chan string, 10)
		f := load(t, e, sharing+`const much = new Uint8Array(5 << 20).fill(1); const value = text(await kv.getAsync(subject)); return value + much.length }`,
			one(g, printed), func(o *js.Options) { o.MemoryLimit = 16 << 20 })
		var all []<-chan result
		for range 8 {
			all = append(all, f.begin(callTime, "k", ""))
		}
		for range 2 {
			await(t, g.began)
		}
		close(g.open)
		for _, done := range all {
			if r := await(t, done); r.err != nil || string(r.Payload) != "k5242880" {
				t.Errorf("reply %q, %v", r.Payload, r.err)
			}
		}
	})
}

// Who waits is waited for when the function is closed.
func TestCloseWaitsForThoseThatWait(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		g := newGate()
		f := load(t, e, sharing+`return text(await kv.getAsync(subject)) }`, one(g, nil))
		all := []<-chan result{f.begin(callTime, "a", ""), f.begin(callTime, "b", "")}
		await(t, g.began)
		await(t, g.began)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := f.Close(ended); err == nil {
			t.Error("closed while calls wait")
		}
		_, err := f.call("c", "")
		wantCode(t, err, nex.Unavailable)
		close(g.open)
		for n, done := range all {
			if r := await(t, done); r.err != nil || string(r.Payload) != []string{"a", "b"}[n] {
				t.Errorf("reply %q, %v", r.Payload, r.err)
			}
		}
		if err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
