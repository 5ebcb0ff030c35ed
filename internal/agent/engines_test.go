package agent_test

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"strings"
	"testing"

	"nex"
	"nex/internal/guest"
)

// hasV8 says that agents of this build have the engine V8.
var hasV8 bool

// TestEngineOfAFunction: the setting decides which engine runs a function, and
// one that is not there is refused.
func TestEngineOfAFunction(t *testing.T) {
	c, _ := start(t)
	const code = `() => typeof Intl` // only V8 has that
	sum := sha256.Sum256([]byte(code))
	inV8, byDefault := "object", "object"
	if !hasV8 {
		inV8, byDefault = "", "undefined"
	}
	for engine, want := range map[nex.Engine]string{"": byDefault, nex.EngineV8: inV8, nex.EngineQuickJS: "undefined"} {
		id := "on" + string(engine)
		err := c.Deploy(t.Context(), guest.Deploy{
			ID: id, Name: "w", File: "w.js", Type: nex.V8, SHA256: hex.EncodeToString(sum[:]), Settings: nex.Settings{Engine: engine},
		}, strings.NewReader(code), guest.Sink{Log: func(slog.Level, string) {}})
		if want == "" {
			if nex.CodeOf(err) != nex.Unsupported || !strings.Contains(err.Error(), `no JavaScript engine "v8", only quickjs`) {
				t.Errorf("engine %q: %v", engine, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("engine %q: %v", engine, err)
			continue
		}
		if got, err := invoke(t, c, id, ""); err != nil || got != want {
			t.Errorf("engine %q: %q, %v; want %q", engine, got, err, want)
		}
	}
}
