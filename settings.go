package nex

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Settings are what a request may say about how its workload runs. What is
// not given is up to the node, which has a default for each, and a ceiling.
// Unknown to Nex 0.2.7.
type Settings struct {
	// FunctionTimeoutMS is the deadline of one call, in milliseconds.
	FunctionTimeoutMS int `json:"function_timeout_ms,omitempty"`
	// FunctionMemoryMiB is how much memory one instance of a function may
	// use, in MiB.
	FunctionMemoryMiB int `json:"function_memory_mib,omitempty"`
	// MaxConcurrency is how many calls of a function may run at once; others
	// wait. 0 leaves it to the engine.
	MaxConcurrency int `json:"max_concurrency,omitempty"`
	// Broadcast makes every copy of a function answer every message. If not,
	// the copies of one name share the messages.
	Broadcast *bool `json:"broadcast,omitempty"`
	// StopGraceMS is how long a service that is told to end may take before
	// it is killed, in milliseconds.
	StopGraceMS int `json:"stop_grace_ms,omitempty"`
	// Sandbox is the weakest sandbox the workload accepts.
	Sandbox Sandbox `json:"sandbox,omitempty"`
	// Engine runs a JavaScript function. "" leaves it to the agent.
	Engine Engine `json:"engine,omitempty"`
	// Resources bound what a service may use.
	Resources Resources `json:"resources,omitzero"`
	// Restart says whether a service that ended is started again.
	Restart Restart `json:"restart,omitzero"`
	// Ready says how to tell that a service is ready to work.
	Ready Ready `json:"ready,omitzero"`
}

// FunctionTimeout is the deadline of one call.
func (s Settings) FunctionTimeout() time.Duration {
	return time.Duration(s.FunctionTimeoutMS) * time.Millisecond
}

// StopGrace is how long a service may take to end.
func (s Settings) StopGrace() time.Duration { return time.Duration(s.StopGraceMS) * time.Millisecond }

// Broadcasts reports whether every copy answers every message.
func (s Settings) Broadcasts() bool { return s.Broadcast != nil && *s.Broadcast }

// quantity is a setting that is a number.
type quantity struct {
	name     string
	value    *int
	function bool // for functions; else for services
	most     int  // whatever a ceiling says
}

func (s *Settings) quantities() []quantity {
	return []quantity{
		{"function_timeout_ms", &s.FunctionTimeoutMS, true, math.MaxInt32},
		{"function_memory_mib", &s.FunctionMemoryMiB, true, math.MaxInt32},
		{"max_concurrency", &s.MaxConcurrency, true, 1000},
		{"stop_grace_ms", &s.StopGraceMS, false, math.MaxInt32},
		{"resources.memory_mib", &s.Resources.MemoryMiB, false, math.MaxInt32},
		{"resources.pids", &s.Resources.PIDs, false, math.MaxInt32},
		{"resources.files", &s.Resources.Files, false, math.MaxInt32},
		{"resources.disk_mib", &s.Resources.DiskMiB, false, math.MaxInt32},
		{"restart.max_attempts", &s.Restart.MaxAttempts, false, math.MaxInt32},
		{"restart.reset_ms", &s.Restart.ResetMS, false, math.MaxInt32},
	}
}

// For completes s for a workload of type t with a node's defaults, as far as
// its ceilings allow, and reports what contradicts the type or asks for more
// than a ceiling. A ceiling that is not set is none.
func (s Settings) For(t WorkloadType, defaults, ceilings Settings) (Settings, error) {
	for i, q := range s.quantities() {
		byDefault, ceiling := *defaults.quantities()[i].value, *ceilings.quantities()[i].value
		if ceiling == 0 {
			ceiling = q.most
		} else if byDefault == 0 {
			byDefault = ceiling
		}
		switch v := *q.value; {
		case v < 0:
			return s, Errorf(Invalid, "%s cannot be %d", q.name, v)
		case v > ceiling:
			return s, Errorf(Denied, "%s of %d is over this node's ceiling of %d", q.name, v, ceiling)
		case q.function != t.IsFunction() && v > 0:
			return s, wrongType(q.name, q.function)
		case q.function == t.IsFunction() && v == 0:
			*q.value = min(byDefault, ceiling)
		}
	}
	forbidden := ceilings.Broadcast != nil && !*ceilings.Broadcast
	switch {
	case s.Broadcasts() && !t.IsFunction():
		return s, wrongType("broadcast", true)
	case s.Broadcasts() && forbidden:
		return s, Errorf(Denied, "this node takes no functions with broadcast")
	case s.Broadcast == nil && t.IsFunction() && !forbidden:
		s.Broadcast = defaults.Broadcast
	}
	switch {
	case s.Engine != "" && t != V8:
		return s, Errorf(Invalid, "engine is a setting of JavaScript functions")
	case s.Engine == "" && t == V8:
		s.Engine = defaults.Engine
	}
	return s, s.forService(!t.IsFunction(), defaults, ceilings)
}

func wrongType(setting string, function bool) error {
	if function {
		return Errorf(Invalid, "%s is a setting of functions, not of services", setting)
	}
	return Errorf(Invalid, "%s is a setting of services, not of functions", setting)
}

// Sandbox is what stands between a workload and its node's host.
type Sandbox string

// The kinds of sandbox.
const (
	SandboxNone        Sandbox = "none"        // a plain child process: for development
	SandboxOS          Sandbox = "os"          // a process behind namespaces, seccomp, Landlock and a cgroup
	SandboxMicroVM     Sandbox = "microvm"     // a microVM, whichever the host can run
	SandboxQEMU        Sandbox = "qemu"        // a QEMU microVM
	SandboxFirecracker Sandbox = "firecracker" // a Firecracker microVM
)

// Sandboxes are all kinds, the strongest isolation first.
func Sandboxes() []Sandbox {
	return []Sandbox{SandboxFirecracker, SandboxQEMU, SandboxMicroVM, SandboxOS, SandboxNone}
}

// AtLeast reports whether s isolates as well as least asks for. An unknown
// kind is never enough; asking for "" is asking for nothing.
func (s Sandbox) AtLeast(least Sandbox) bool {
	if least == "" {
		return true
	}
	kinds := Sandboxes()
	have, want := slices.Index(kinds, s), slices.Index(kinds, least)
	return have >= 0 && want >= 0 && have <= want
}

// UnmarshalText refuses words that name no kind.
func (s *Sandbox) UnmarshalText(text []byte) error {
	kind := Sandbox(text)
	if kind != "" && !slices.Contains(Sandboxes(), kind) {
		return fmt.Errorf("unknown sandbox %.32q: choose one of %v", kind, Sandboxes())
	}
	*s = kind
	return nil
}

// Engine is what runs JavaScript.
type Engine string

// The engines. Both run what is in the language; they differ in speed, in size
// and in what they bring along, as V8 does Intl.
const (
	EngineV8      Engine = "v8"      // fast with much work per call; not in every agent
	EngineQuickJS Engine = "quickjs" // small; in every agent
)

// Engines are all engines, the preferred one first.
func Engines() []Engine { return []Engine{EngineV8, EngineQuickJS} }

// UnmarshalText refuses words that name no engine.
func (e *Engine) UnmarshalText(text []byte) error {
	engine := Engine(text)
	if engine != "" && !slices.Contains(Engines(), engine) {
		return fmt.Errorf("unknown engine %.32q: choose one of %v", engine, Engines())
	}
	*e = engine
	return nil
}
