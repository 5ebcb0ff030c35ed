package js_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"nex/internal/runtime/js"
)

// TestDeclarations holds nex.d.ts against what there is: every method that it
// declares of a host service, and no other.
func TestDeclarations(t *testing.T) {
	text, err := os.ReadFile("../../../examples/js/nex.d.ts")
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	for service, name := range map[string]string{"kv": "KeyValue", "objectStore": "ObjectStore", "messaging": "Messaging", "http": "HTTP"} {
		body := regexp.MustCompile(`(?s)interface ` + name + ` \{\n(.*?)\n  \}`).FindSubmatch(text)
		if body == nil {
			t.Fatalf("no interface %s", name)
		}
		for _, method := range regexp.MustCompile(`(?m)^    (\w+)\(`).FindAllSubmatch(body[1], -1) {
			declared = append(declared, service+"."+string(method[1]))
		}
	}
	each(t, func(t *testing.T, e js.Engine) {
		f := load(t, e, `(subject, payload, ctx) => {
			const have = Object.entries(hostServices).flatMap(([name, service]) => Object.keys(service).map((method) => name + "." + method));
			const said = ctx.json();
			return [said.filter((name) => !have.includes(name)), have.filter((name) => !said.includes(name))];
		}`)
		f.wantReply(t, "s", `["`+strings.Join(declared, `","`)+`"]`, `[[],[]]`)
	})
}
