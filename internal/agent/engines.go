package agent

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"nex"
	"nex/internal/runtime/js"
	"nex/internal/runtime/js/quickjs"
)

// engine is a JavaScript engine that is built in. It starts when it is first
// used.
type engine struct {
	name  nex.Engine
	start func() (js.Engine, error)
}

// builtIn are the engines of this build, the default first. Others than this
// one come with build tags.
var builtIn = []engine{
	{nex.EngineQuickJS, sync.OnceValues(func() (js.Engine, error) { return quickjs.New() })},
}

// pickEngine returns the engine of that name, or the default one for "".
func pickEngine(name nex.Engine) (js.Engine, error) {
	for _, e := range builtIn {
		if name != e.name && name != "" {
			continue
		}
		started, err := e.start()
		if err != nil {
			return nil, fmt.Errorf("start JavaScript engine %s: %w", e.name, err)
		}
		return started, nil
	}
	return nil, nex.Errorf(nex.Unsupported, "this node's agent has no JavaScript engine %q, only %s: ask for that or for none, or install an agent that was built with it", name, builtIn[0].name)
}

// warm uses the default engine once, so that the first function finds it
// started. What fails here fails again, with an answer, when a function wants
// the engine.
func warm(ctx context.Context) {
	e, err := pickEngine("")
	if err != nil {
		return
	}
	f, err := js.Load(ctx, e, js.Options{Code: []byte("() => {}"), Log: func(slog.Level, string) {}})
	if err == nil {
		_ = f.Close(ctx) // nothing runs
	}
}
