//go:build v8 && linux && (amd64 || arm64)

package agent_test

func init() { hasV8 = true }
