//go:build v8 && linux && (amd64 || arm64)

package js_test

import (
	"nex/internal/runtime/js"
	"nex/internal/runtime/js/v8"
)

func init() { makers["v8"] = func() (js.Engine, error) { return v8.New() } }
