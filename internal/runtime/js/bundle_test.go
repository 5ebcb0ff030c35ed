package js_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"nex"
	"nex/internal/runtime/js"
)

// bundle returns a script of more than so many bytes, as bundlers make them:
// modules as functions in an object, of which the last needs the others.
func bundle(size int) string {
	var b strings.Builder
	b.WriteString("const modules = {\n")
	n := 0
	for ; b.Len() < size; n++ {
		fmt.Fprintf(&b, `  %d(exports, load) { // a module
    class Item%[1]d { constructor(name) { this.name = name; this.tags = ["a", "b", %[1]d] } get text() { return `+"`${this.name} ${this.tags.join()}`"+` } }
    exports.make = (name) => { const item = new Item%[1]d(name); if (item.tags.length > 3) throw new TypeError("too many tags: " + item.text); return item };
    exports.limits = { low: %[1]d, high: %[1]d * 2, pattern: /^[a-z]+-%[1]d$/u, table: [1, 2, 3, 5, 7, 11, 13, 17, 19, 23] };
  },
`, n)
	}
	fmt.Fprintf(&b, `};
const loaded = {};
const load = (id) => { if (!loaded[id]) { loaded[id] = {}; modules[id](loaded[id], load) } return loaded[id] };
module.exports = (subject) => load(%d).make(subject).text;
`, n-1)
	return b.String()
}

func TestLargeBundle(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		size := 4 << 20
		if raced && strings.HasSuffix(t.Name(), "/quickjs") {
			size >>= 4 // the race detector makes its compiler very slow
		}
		code := bundle(size)
		f := load(t, e, code, func(o *js.Options) { o.MemoryLimit = 64 << 20 })
		if got, err := f.call("item", "p"); err != nil || !strings.HasPrefix(got, "item a,b,") {
			t.Errorf("reply %q, %v", got, err)
		}
		o := js.Options{Name: "bundle.js", Code: []byte(code), MemoryLimit: int64(size), Log: (&recorder{}).log}
		ctx, cancel := context.WithTimeout(t.Context(), callTime)
		defer cancel()
		_, err := js.Load(ctx, e, o)
		wantCode(t, err, nex.OutOfMemory)
	})
}
