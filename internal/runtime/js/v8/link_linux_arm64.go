//go:build v8

package v8

// The library, which comes as a module of its own, and the module that its
// headers are in.
import (
	_ "github.com/tommie/v8go/deps/include"
	_ "github.com/tommie/v8go/deps/linux_arm64"
)
