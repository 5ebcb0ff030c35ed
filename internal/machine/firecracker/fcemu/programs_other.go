//go:build !linux

package fcemu

// Shim runs no program: there are none for this system.
func Shim([]string) (code int, was bool) { return 0, false }
