// Package confine is the OS sandbox: it starts an agent as process 1 of
// namespaces of its own, over a root directory that holds nothing of the host,
// without capabilities, behind a seccomp filter and Landlock.
//
// Both sides are here. A node has [Config.Apply] prepare the command that starts
// an agent; the agent's main is wrapped in [Main], which sets the sandbox up
// and executes the same program again, now inside. What cannot be set up is an
// error that says what to do, or, with [Config.BestEffort], a gap that is
// reported. It is for Linux; elsewhere everything is refused.
//
// A Config is a plain value. The package keeps no state.
package confine

// Variable names the environment variable that has an agent confine itself. It
// is gone when the agent runs.
const Variable = "NEX_CONFINE"

// Network says what network a machine has.
type Network string

// The networks of a machine.
const (
	NoNetwork   Network = "none" // a loopback interface of its own
	HostNetwork Network = "host" // the host's
)

// Config says how machines are confined.
type Config struct {
	Network    Network
	BestEffort bool // go on without what this host does not have
	// Plain leaves out namespaces, and with them the root directory and the
	// mapped user: best effort on hosts that forbid user namespaces.
	Plain bool
}

// Sandbox is what an agent has to know of the sandbox it is in. The zero value
// is none.
type Sandbox struct {
	// Service confines the calling thread, and what is started from it, to a
	// workload's directory, in whose subdirectory home it may write. The thread
	// must not be used for anything else afterwards. Nil does nothing.
	Service func(dir string) error
	// Notice is for the log of a service that starts; may be "".
	Notice string
}

// noNetwork tells the user of a service why it reaches nobody.
const noNetwork = `this node's sandbox has no network ("os_sandbox": {"network": "none"}): the service reaches only itself and, at NEX_HOST_SERVICES, its host services. ` +
	`If it needs more, have the node's operator set "network" to "host"`

// Paths inside. An agent works in workDir, which is all it can write to besides
// temporary files.
const (
	workDir = "/nex"
	tmpDir  = "/tmp"
)

// spec is the content of [Variable]: from the node to the agent that is to
// confine itself, and from that to what it executes inside.
type spec struct {
	Dir, Agent int // file descriptors of the machine's directory and of the agent
	Name       string
	Network    Network
	BestEffort bool `json:",omitempty"`
	Plain      bool `json:",omitempty"`
	Probe      bool `json:",omitempty"` // report and end
	Inside     bool `json:",omitempty"` // it is done
	Missing    []string
}

// Report is what a probe prints: as JSON, one line.
type Report struct {
	Missing []string // what could not be applied, each with its reason
}
