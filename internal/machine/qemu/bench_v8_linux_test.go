//go:build v8

package qemu_test

import (
	"nex"
	"nex/internal/nextest"
)

func init() { agents[nex.EngineV8] = nextest.StaticV8Agent }
