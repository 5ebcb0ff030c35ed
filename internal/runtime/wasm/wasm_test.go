package wasm

import (
	"log/slog"
	"os"
	"testing"

	"nex/internal/nextest"
	"nex/internal/runtime"
)

// echoFunction is the compiled Rust example: it replies with the payload
// followed by the subject, and starts twenty times faster than a Go module.
const echoFunction = "../../../examples/wasm/echofunction/echofunction.wasm"

func TestFunctionContract(t *testing.T) {
	nextest.Functions(t, func(t *testing.T, behaviour string, log runtime.Log) runtime.Function {
		o := behaving(behaviour)
		if behaviour == "subject" {
			o = example(t)
		}
		o.Log = log
		f, err := Load(t.Context(), o)
		if err != nil {
			t.Fatalf("load: %v", err)
		}
		return f
	})
}

// example returns options for the Rust example.
func example(t *testing.T) Options {
	t.Helper()
	code, err := os.ReadFile(echoFunction)
	if err != nil {
		t.Fatal(err)
	}
	return Options{Name: "echofunction.wasm", Code: code, CacheDir: guest.cache, Log: func(slog.Level, string) {}}
}
