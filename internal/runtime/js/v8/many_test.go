//go:build v8 && linux && (amd64 || arm64)

package v8

import (
	"context"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nex"
	"nex/internal/runtime/js"
)

// source is a small script.
func source(code string) js.Source {
	return js.Source{Name: "t.js", Code: []byte(code), Info: `{"env":{}}`, Memory: 256 * mib, Print: func(int, string) {}}
}

// TestManyIsolates makes as many as there may be; they are small, each works,
// and one more is refused until one goes.
func TestManyIsolates(t *testing.T) {
	e := newEngine(t)
	before, heapsBefore := resident(t), atomic.LoadUint64(heaps)
	var all []js.Isolate
	defer func() {
		for _, iso := range all {
			iso.Close()
		}
		if n := isolates.Load(); n != 0 {
			t.Errorf("%d isolates are still counted", n)
		}
		if left := atomic.LoadUint64(heaps); left != heapsBefore {
			t.Errorf("heaps of %d bytes are counted, before it were %d", int64(left), heapsBefore)
		}
	}()
	for range maxIsolates {
		iso, err := e.New(t.Context(), source(`(subject, payload) => payload`))
		if err != nil {
			t.Fatalf("isolate %d: %v", len(all), err)
		}
		all = append(all, iso)
		if reply, err := iso.Call(t.Context(), js.Call{Payload: []byte("p")}); err != nil || string(reply.Payload) != "p" {
			t.Fatalf("isolate %d: %q, %v", len(all), reply.Payload, err)
		}
	}
	each := (resident(t) - before) / maxIsolates
	t.Logf("an isolate takes %d KiB, %d of them heap", each>>10, (atomic.LoadUint64(heaps)-heapsBefore)/maxIsolates>>10)
	if each > 3*mib/2 {
		t.Errorf("an isolate takes %d KiB", each>>10)
	}
	_, err := e.New(t.Context(), source(`() => 1`))
	if nex.CodeOf(err) != nex.Exhausted || !strings.Contains(err.Error(), "1000 JavaScript isolates") {
		t.Errorf("one more: %v", err)
	}
	all[0].Close()
	if all[0], err = e.New(t.Context(), source(`() => 1`)); err != nil {
		t.Fatal(err)
	}
}

// TestHeapsTogether: isolates whose heaps take too much together come back
// unusable, and none is added, until there is room again.
func TestHeapsTogether(t *testing.T) {
	e := newEngine(t)
	e.maxHeaps = atomic.LoadUint64(heaps) + 100*mib
	keep := source(`const all = []; (subject) => { for (let i = 0; i < Number(subject); i++) all.push(new Array(1 << 17).fill(i)) }`) // half a MiB each
	var two [2]js.Isolate
	for n := range two {
		iso, err := e.New(t.Context(), keep)
		if err != nil {
			t.Fatal(err)
		}
		defer iso.Close()
		if _, err := iso.Call(t.Context(), js.Call{Subject: "60"}); err != nil || !iso.Usable() {
			t.Fatalf("isolate %d: usable %t, %v", n, iso.Usable(), err)
		}
		two[n] = iso
	}
	if _, err := two[1].Call(t.Context(), js.Call{Subject: "100"}); err != nil {
		t.Fatal(err)
	}
	if two[0].Usable() || two[1].Usable() {
		t.Errorf("isolates stay, with heaps of %d MiB", atomic.LoadUint64(heaps)/mib)
	}
	if _, err := e.New(t.Context(), keep); nex.CodeOf(err) != nex.Exhausted || !strings.Contains(err.Error(), "no room for more") {
		t.Errorf("one more: %v", err)
	}
	if _, err := two[0].Call(t.Context(), js.Call{Subject: "0"}); err != nil {
		t.Errorf("a call meanwhile: %v", err)
	}
	e.maxHeaps += 100 * mib
	if !two[0].Usable() {
		t.Error("unusable, though there is room")
	}
}

// TestHeapsThatEndAreNotCounted ends isolates that were stopped amid a full heap,
// which V8 may still collect while it takes them down.
func TestHeapsThatEndAreNotCounted(t *testing.T) {
	e := newEngine(t)
	bomb := source(`() => { const f = () => { Promise.resolve().then(f); Promise.resolve().then(f) }; f(); return new Promise(() => {}) }`)
	bomb.Memory = 128 * mib
	before := atomic.LoadUint64(heaps)
	for i := range 20 {
		iso, err := e.New(t.Context(), bomb)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(20*i)*time.Millisecond)
		_, err = iso.Call(ctx, js.Call{Deadline: math.Inf(1)})
		cancel()
		if err == nil {
			t.Error("it ended by itself")
		}
		iso.Close()
		if after := atomic.LoadUint64(heaps); after != before {
			t.Fatalf("after %d isolates, the last of which ended with %v, heaps count %d bytes, before %d", i+1, err, int64(after), before)
		}
	}
}
