//go:build v8 && linux && (amd64 || arm64)

package node_test

import (
	"testing"

	"nex"
	"nex/internal/nextest"
)

// TestSandboxedV8: V8 makes machine code and starts threads behind the filter of
// system calls, and its crash ends the machine alone.
func TestSandboxedV8(t *testing.T) {
	s := confined(t)
	s.AgentPath = nextest.StaticV8Agent(t)
	r := newRig(t, s)
	r.mustDeployJS(t, "hot", "t.hot", `() => {
		function sum(a) { let s = 0; for (let i = 0; i < a.length; i++) s += a[i] * 2; return s }
		const a = new Float64Array(1000).fill(1);
		let s = 0;
		for (let i = 0; i < 20000; i++) s += sum(a);
		return s + " " + new Intl.NumberFormat("de").format(1234.5);
	}`)
	if m := r.call(t, "t.hot", nil); string(m.Data) != "40000000 1.234,5" {
		t.Errorf("%q %v", m.Data, m.Header)
	}
	w := r.upload(t, "crash", nex.V8, []byte(`() => "a".repeat(2**28).split("")`))
	w.TriggerSubjects = []string{"t.crash"}
	if _, err := r.deploy(t, w); err != nil {
		t.Fatal(err)
	}
	if m := r.call(t, "t.crash", nil); m.Header.Get("Nats-Service-Error-Code") == "" {
		t.Errorf("the crash answered %q", m.Data)
	}
	r.await(t, nex.WorkloadRestarting{})
	if m := r.call(t, "t.hot", nil); string(m.Data) != "40000000 1.234,5" {
		t.Errorf("after the crash: %q %v", m.Data, m.Header)
	}
}
