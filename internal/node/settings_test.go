package node_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"nex"
	"nex/internal/nextest"
)

// TestSettingsReachTheWorkload: each setting of a request does what it says,
// in a real agent.
func TestSettingsReachTheWorkload(t *testing.T) {
	r := newRig(t, settings(t))
	run := func(name, script string, s nex.Settings) {
		t.Helper()
		w := r.upload(t, name, nex.V8, []byte(script))
		w.TriggerSubjects, w.Settings = []string{"t." + name}, s
		if _, err := r.deploy(t, w); err != nil {
			t.Fatal(err)
		}
	}
	failsWith := func(name string, want nex.Code) {
		t.Helper()
		if m := r.call(t, "t."+name, nil); !bytes.Contains(m.Data, []byte(`"code":"`+want+`"`)) {
			t.Errorf("%s: %q, want %s", name, m.Data, want)
		}
	}
	const allocate = "() => { let s = []; for (let i = 0; i < 200; i++) s.push(new Uint8Array(100_000).fill(1)); return s.length }"
	run("small", allocate, nex.Settings{FunctionMemoryMiB: 8})
	failsWith("small", nex.OutOfMemory)
	run("large", allocate, nex.Settings{FunctionMemoryMiB: 64})
	if m := r.call(t, "t.large", nil); string(m.Data) != "200" {
		t.Errorf("large: %q", m.Data)
	}
	run("hasty", "() => { for (;;); }", nex.Settings{FunctionTimeoutMS: 50})
	failsWith("hasty", nex.Timeout)

	run("frugal", "() => typeof Intl", nex.Settings{Engine: nex.EngineQuickJS})
	if m := r.call(t, "t.frugal", nil); string(m.Data) != "undefined" {
		t.Errorf("frugal: %q, as if in V8", m.Data)
	}

	// One isolate at most: a global counts every call.
	run("single", "let calls = 0; (s, p) => ++calls", nex.Settings{MaxConcurrency: 1})
	const calls = 50
	got := map[string]bool{}
	replies := make(chan string, calls)
	for range calls {
		go func() {
			m, err := r.nc.Request("t.single", nil, nextest.Patience)
			if err != nil {
				replies <- err.Error()
				return
			}
			replies <- string(m.Data)
		}()
	}
	for range calls {
		got[nextest.Await(t, replies, "a reply")] = true
	}
	if len(got) != calls {
		t.Errorf("%d calls counted to %d: there was more than one isolate", calls, len(got))
	}
}

// TestStopGraceReachesTheService: one that will not end is killed after its
// grace, not after the node's.
func TestStopGraceReachesTheService(t *testing.T) {
	s := settings(t)
	s.Defaults.StopGraceMS = int((10 * time.Minute).Milliseconds())
	r := newRig(t, s)
	w := r.upload(t, "stubborn", nex.Native, []byte("#!/bin/sh\ntrap '' TERM\necho ready\nwhile :; do read x </dev/zero; done\n"))
	w.Settings = nex.Settings{StopGraceMS: 200}
	reply, err := r.deploy(t, w)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.stop(t, "stubborn", reply.ID); err != nil { // gives up long before ten minutes
		t.Error(err)
	}
}

func TestSettingsAreHeldAgainstTheNode(t *testing.T) {
	s := lean(t)
	s.Ceilings.FunctionTimeoutMS = 100
	r := newRig(t, s)
	w := r.function(t, "echo")
	for text, settings := range map[string]nex.Settings{
		"function_timeout_ms of 101 is over this node's ceiling of 100":            {FunctionTimeoutMS: 101},
		"stop_grace_ms is a setting of services":                                   {StopGraceMS: 1},
		`unknown engine "node"`:                                                    {Engine: "node"},
		`the workload wants a sandbox of at least "os", this node has "none"`:      {Sandbox: nex.SandboxOS},
		`the workload wants a sandbox of at least "microvm", this node has "none"`: {Sandbox: nex.SandboxMicroVM},
	} {
		w.Settings = settings
		if _, err := r.deploy(t, w); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %s", err, text)
		}
	}
}
