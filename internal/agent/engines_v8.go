//go:build v8 && linux && (amd64 || arm64)

package agent

import (
	"slices"
	"sync"

	"nex"
	"nex/internal/runtime/js"
	"nex/internal/runtime/js/v8"
)

func init() {
	builtIn = slices.Insert(builtIn, 0, engine{nex.EngineV8, sync.OnceValues(func() (js.Engine, error) { return v8.New() })})
}
