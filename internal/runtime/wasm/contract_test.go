package wasm_test

import (
	"testing"

	"nex/internal/nextest"
	"nex/internal/runtime"
	"nex/internal/runtime/wasm"
)

// The suite's package reaches this one through the agent, so the test that
// plugs in stands outside.
func TestFunctionContract(t *testing.T) {
	nextest.Functions(t, func(t *testing.T, behaviour string, log runtime.Log) runtime.Function {
		o := wasm.Behaving(behaviour)
		if behaviour == "subject" {
			o = wasm.RustEcho(t)
		}
		o.Log = log
		f, err := wasm.Load(t.Context(), o)
		if err != nil {
			t.Fatalf("load: %v", err)
		}
		return f
	})
}
