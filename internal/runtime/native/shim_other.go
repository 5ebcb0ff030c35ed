//go:build !linux

package native

import "os"

// bounds are the limits of one process. There are none here.
type bounds struct {
	Doors                     int
	Files, File, Memory, PIDs uint64
}

// viaShim is start: nothing is to be limited here.
func (g program) viaShim(bounds, []*os.File) (*os.Process, error) {
	return os.StartProcess(g.path, g.argv, &g.attr)
}

// Shim is never what this program is started for.
func Shim([]string) (code int, was bool) { return 0, false }

// adopt does nothing: children of services cannot be adopted here.
func adopt() error { return nil }
