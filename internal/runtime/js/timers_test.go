package js_test

import (
	"context"
	"log/slog"
	"regexp"
	"testing"
	"time"

	"nex"
	"nex/internal/runtime"
	"nex/internal/runtime/js"
)

// pause is JavaScript that every test of timers has.
const pause = `const pause = (ms, value) => new Promise((done) => setTimeout(done, ms, value));`

func TestTimers(t *testing.T) {
	tests := []struct{ name, body, want string }{
		{"wait", `return await pause(5, "later")`, `later`},
		{"wait takes its time", `const from = performance.now(); await pause(30); return performance.now() - from >= 30`, `true`},
		{"order of time", `const got = []; setTimeout(() => got.push(3), 300); setTimeout(() => got.push(1), 1); setTimeout(() => got.push(2), 150); await pause(301); return got`, `[1,2,3]`},
		{"order of start", `const got = []; for (const n of [1, 2, 3, 4, 5, 6, 7]) setTimeout(() => got.push(n), 3); await pause(3); return got`, `[1,2,3,4,5,6,7]`},
		{"jobs before timers", `const got = []; setTimeout(() => got.push("timer")); queueMicrotask(() => got.push("micro")); Promise.resolve().then(() => got.push("then")); got.push("now"); await pause(1); return got`,
			`["now","micro","then","timer"]`},
		{"jobs between timers", `const got = []; setTimeout(() => { got.push(1); queueMicrotask(() => got.push(2)) }); setTimeout(() => got.push(3)); await pause(1); return got`, `[1,2,3]`},
		{"clear", `const got = []; const a = setTimeout(() => got.push("no"), 1); clearTimeout(a); clearTimeout(a); clearTimeout(undefined); clearTimeout(99); await pause(3); return got`, `[]`},
		{"interval", `let n = 0; return await new Promise((done) => { const i = setInterval((step) => { if ((n += step) === 6) { clearInterval(i); done(n) } }, 1, 2) })`, `6`},
		{"interval that clears itself", `let n = 0; const i = setInterval(() => { n++; clearInterval(i) }, 1); await pause(8); return n`, `1`},
		{"strange delays", `return await Promise.all([pause(undefined, 1), pause(NaN, 2), pause(-5, 3), pause("2", 4), pause(null, 5)])`, `[1,2,3,4,5]`},
		{"ids", `const a = setTimeout(() => {}), b = setTimeout(() => {}); return typeof a === "number" && a > 0 && b > a`, `true`},
		{"no function", `try { setTimeout("code", 1) } catch (e) { return e.name }`, `TypeError`},
		{"no microtask", `try { queueMicrotask(1) } catch (e) { return e.name }`, `TypeError`},
		{"race", `return await Promise.race([pause(10_000_000, "slow"), pause(2, "quick")])`, `quick`},
		{"many", `let sum = 0; for (let n = 0; n < 300; n++) setTimeout(() => sum += n, (n * 7919) % 11); await pause(12); return sum`, `44850`},
		{"many cleared", `for (let n = 0; n < 1000; n++) clearTimeout(setTimeout(() => {}, 1e6)); const got = []; for (const n of [3, 1, 2]) setTimeout(() => got.push(n), 100 * n); await pause(301); return got`, `[1,2,3]`},
		{"in thenable", `return {then: (done) => setTimeout(done, 2, "then")}`, `then`},
		{"clock", `const a = performance.now(), b = performance.now(); return b >= a && Math.abs(performance.timeOrigin + a - Date.now()) < 5000`, `true`},
		{"payload is there after a wait", `await pause(2); return payload`, `pay`},
		{"headers after a wait", `await pause(2); return ctx.respond(ctx.text(), {headers: {a: "b"}})`, `pay`},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				f := load(t, e, pause+`async (subject, payload, ctx) => { `+tt.body+` }`, func(o *js.Options) { o.MaxConcurrency = 1 })
				for range 2 {
					f.wantReply(t, "s", "pay", tt.want)
				}
				if got := f.take(); len(got) != 0 {
					t.Errorf("log %v", got)
				}
			})
		}
	})
}

func TestTimersWhileLoading(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, pause+`const ready = await pause(3, "ready"); setTimeout(() => console.log("dropped")); export default () => pause(1, ready)`)
		f.wantReply(t, "s", "p", "ready")
		if got := f.take(); len(got) != 0 {
			t.Errorf("log %v", got)
		}
		_, err := tryLoad(t, e, `await new Promise((_, no) => setTimeout(no, 1, new Error("late"))); export default 1`)
		wantCode(t, err, nex.Invalid)
	})
}

func TestTimersAreDroppedWithTheReply(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, pause+`async (s) => { if (s === "leave") { setInterval(() => console.log("left"), 1); return "reply" } await pause(10); return "waited" }`,
			func(o *js.Options) { o.MaxConcurrency = 1 })
		f.wantReply(t, "leave", "p", "reply")
		f.wantReply(t, "wait", "p", "waited")
		if got := f.take(); len(got) != 0 {
			t.Errorf("log %v", got)
		}
	})
}

func TestTimersThatThrow(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, pause+`async () => { setTimeout(() => {
			throw new Error("in a timer") }); queueMicrotask(() => { throw "in a job" }); await pause(2); return "fine" }`)
		f.wantReply(t, "s", "p", "fine")
		got := f.take()
		want := []string{`^in a job$`, `^echo\.js:2:\d+: Error: in a timer\n    at .*echo\.js:2:\d+\)?$`}
		if len(got) != len(want) {
			t.Fatalf("log %v", got)
		}
		for i, r := range got {
			if r.level != slog.LevelError || !regexp.MustCompile(want[i]).MatchString(r.text) {
				t.Errorf("log %v, want an error that matches %s", r, want[i])
			}
		}
	})
}

// TestNothingToWaitFor: a promise that nothing will settle fails at once,
// also after timers ran.
func TestNothingToWaitFor(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, pause+`async () => { await pause(2); setTimeout(() => {}, 1); await new Promise(() => {}) }`)
		_, err := f.call("s", "p")
		wantCode(t, err, nex.Exception)
		if err != nil && err.Error() != js.ErrNeverSettles.Error() {
			t.Errorf("error %q", err)
		}
	})
}

func TestDeadlineEndsWaits(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		tests := []struct{ name, body string }{
			{"long", `await pause(1e9)`},
			{"again and again", `for (;;) await pause(1)`},
			{"interval", `setInterval(() => {}, 0); await new Promise(() => {})`},
			{"loop in a timer", `setTimeout(() => { for (;;) {} }); await pause(1e9)`},
			{"fork", `const f = () => { setTimeout(f); setTimeout(f) }; f(); await pause(1e9)`},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				f := load(t, e, pause+`async (s) => { if (s === "s") return "fine"; `+tt.body+` }`, func(o *js.Options) { o.MaxConcurrency = 1 })
				ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
				defer cancel()
				start := time.Now()
				_, err := f.Invoke(ctx, runtime.Trigger{Subject: "run"})
				wantCode(t, err, nex.Timeout)
				if took := time.Since(start); took > callTime/2 {
					t.Errorf("stopped after %v", took)
				}
				f.wantReply(t, "s", "p", "fine")
			})
		}
	})
}

func TestForkOfTimersMeetsTheMemoryLimit(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, pause+`async (s) => { if (s === "s") return "fine"; const f = () => { for (let n = 0; n < 2; n++) setTimeout(f, 0, new Uint8Array(50_000)) }; f(); await pause(1e9) }`,
			func(o *js.Options) { o.MaxConcurrency, o.MemoryLimit = 1, 8<<20 })
		_, err := f.call("run", "p")
		wantCode(t, err, nex.OutOfMemory)
		f.wantReply(t, "s", "p", "fine")
	})
}

func TestWaitsRunTogether(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, pause+`async (s) => await pause(50, s)`, func(o *js.Options) { o.MaxConcurrency = 8 })
		done := make(chan struct{})
		for range 8 {
			go func() {
				f.wantReply(t, "s", "p", "s")
				done <- struct{}{}
			}()
		}
		for range 8 {
			<-done
		}
	})
}
