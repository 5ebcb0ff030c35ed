package js_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"nex"
	"nex/internal/nextest"
	"nex/internal/runtime"
	"nex/internal/runtime/js"
)

// Calls of every kind at once, in few isolates: each gets its own reply or an
// error that can be.
func TestSharingHammer(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, sharing+`
			const n = Number(subject);
			switch (n % 10) {
			case 0: return subject;
			case 1: await pause(n % 7); return subject;
			case 2: await kv.setAsync(subject, subject); return text(await kv.getAsync(subject));
			case 3: kv.set(subject, subject); await pause(1); return kv.get(subject);
			case 4: settle = kv.getAsync("slow"); pause(1e6); return subject;
			case 5: for (let i = 0; i < 5; i++) { await pause(1); await kv.setAsync("k", payload) } return payload;
			case 6: await pause(1); throw new Error(subject);
			case 7: return ctx.respond(await pause(2, subject), { headers: { own: subject } });
			case 8: if (n % 40 === 8) for (;;) {} await kv.getAsync("slow"); return "late";
			case 9: if (n % 40 === 9) { const a = []; for (;;) a.push({ a }) } await new Promise(() => {});
			}
		}`, withHost(newFakeHost()), func(o *js.Options) { o.MaxConcurrency, o.MemoryLimit = 2, 8<<20 })
		var wg sync.WaitGroup
		places := make(chan struct{}, 100)
		calls := 600
		if raced {
			calls = 200
		}
		for n := range calls {
			places <- struct{}{}
			wg.Go(func() {
				defer func() { <-places }()
				hammer(t, f, n)
			})
		}
		wg.Wait()
	})
}

// hammer makes the call with that number.
func hammer(t *testing.T, f fixture, n int) {
	patience := nextest.Patience
	switch n % 10 {
	case 8:
		patience = 30 * time.Millisecond
	case 9: // it settles neither, but is only told so when nothing that others forgot is left
		patience = time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	want := fmt.Sprint(n)
	reply, err := f.Invoke(ctx, runtime.Trigger{Subject: want, Payload: []byte(want)})
	code := nex.CodeOf(err)
	if err == nil {
		code = ""
	}
	may := []nex.Code{nex.Unavailable}
	switch n % 10 {
	case 6:
		may = append(may, nex.Exception)
	case 8:
		may = append(may, nex.Timeout, nex.Overloaded)
	case 9:
		may = append(may, nex.Exception, nex.OutOfMemory, nex.Timeout, nex.Overloaded)
	default:
		may = append(may, "")
	}
	if !slices.Contains(may, code) {
		t.Errorf("call %d: %q, %v", n, reply.Payload, err)
	}
	if err == nil && string(reply.Payload) != want || err == nil && (len(reply.Header) > 0) != (n%10 == 7) {
		t.Errorf("call %d: %q, %v", n, reply.Payload, reply.Header)
	}
}
