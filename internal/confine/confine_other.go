//go:build !linux

package confine

import (
	"os/exec"

	"nex"
)

// Apply refuses: the OS sandbox is made of what Linux has.
func (c Config) Apply(*exec.Cmd, string) (release func(), err error) {
	return nil, nex.Errorf(nex.Unsupported, `sandbox "os" needs Linux: use another sandbox`)
}

// ApplyProbe refuses like [Config.Apply].
func (c Config) ApplyProbe(cmd *exec.Cmd) (release func(), err error) { return c.Apply(cmd, "") }

// Main calls agent.
func Main(agent func(Sandbox) error) error { return agent(Sandbox{}) }
