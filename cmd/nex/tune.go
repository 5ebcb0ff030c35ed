package main

import (
	"os"
	"runtime"
	"runtime/debug"
)

// tune sets Go's runtime up for a node, which passes small messages on and
// computes little: half of the processors do, and spare it most of the switches
// between threads; to collect garbage rarely costs it little memory. What the
// environment says goes before.
func tune() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.NumCPU()/2))
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}
