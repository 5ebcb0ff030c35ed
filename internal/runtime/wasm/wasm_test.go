package wasm

import (
	"testing"

	"nex/internal/nextest"
	"nex/internal/runtime"
)

func TestFunctionContract(t *testing.T) {
	nextest.Functions(t, func(t *testing.T, behaviour string, log runtime.Log) runtime.Function {
		o := behaving(behaviour)
		o.Log = log
		f, err := Load(t.Context(), o)
		if err != nil {
			t.Fatalf("load: %v", err)
		}
		return f
	})
}
