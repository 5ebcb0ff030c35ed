package js_test

import (
	"testing"

	"nex/internal/nextest"
	"nex/internal/runtime"
	"nex/internal/runtime/js"
)

// behaviours are the scripts that the contract of function runtimes asks for.
var behaviours = map[string]string{
	"echo":    `(subject, payload) => payload`,
	"subject": `(subject, payload) => { const s = new TextEncoder().encode(subject); const r = new Uint8Array(payload.length + s.length); r.set(payload); r.set(s, payload.length); return r }`,
	"empty":   `() => {}`,
	"throw":   `() => { throw new Error("boom") }`,
	"loop":    `() => { for (;;); }`,
	"big":     `() => { let s = ""; for (let i = 0; i < 1000; i++) s += "0123456789"; return s }`,
	"log":     `() => { console.log("hello log") }`,
	"hog":     `() => { const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1)); }`,
}

func TestFunctionContract(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		nextest.Functions(t, func(t *testing.T, behaviour string, log runtime.Log) runtime.Function {
			f, err := js.Load(t.Context(), e, js.Options{Name: behaviour + ".js", Code: []byte(behaviours[behaviour]), Log: log})
			if err != nil {
				t.Fatal(err)
			}
			return f
		})
	})
}
