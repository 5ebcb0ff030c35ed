//go:build v8 && linux && (amd64 || arm64)

package node_test

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"nex"
	"nex/internal/nextest"
)

// attack is a function that tries to take its machine down, or to fill it.
type attack struct {
	name, body string
	want       []nex.Code
	dies       bool // the agent does, and only then
	timeout    int  // in milliseconds, 300 if 0
}

// patient is the timeout in milliseconds of attacks that end otherwise.
const patient = 10_000

var attacks = []attack{
	{"crash", `return "a".repeat(2**28).split("")`, []nex.Code{nex.Unavailable}, true, patient},
	{"native-loop", `return Object.keys(new Uint8Array(2**26))`, []nex.Code{nex.Timeout}, true, 0},
	{"loop", `for (;;) {}`, []nex.Code{nex.Timeout}, false, 0},
	{"memory", `const a = []; for (;;) a.push(new Uint8Array(2**20).fill(1))`, []nex.Code{nex.OutOfMemory}, false, patient},
	{"promises", `const f = () => { Promise.resolve().then(f); Promise.resolve().then(f) }; f(); return new Promise(() => {})`, []nex.Code{nex.OutOfMemory, nex.Timeout}, false, 0},
	{"recursion", `function f(n) { return n === 0 ? 0 : 1 + f(n - 1) } return f(10_000)`, []nex.Code{nex.Exception}, false, patient},
	{"string", `return "x".repeat(100 * 2**20)`, []nex.Code{nex.BadReply}, false, patient},
	{"regexp", `return /^(a+)+$/.test("a".repeat(40) + "b")`, []nex.Code{nex.Timeout}, false, 0},
}

// endlessWasm is (module (func (export "_start") (loop (br 0)))).
var endlessWasm = []byte("\x00asm\x01\x00\x00\x00" + "\x01\x04\x01\x60\x00\x00" + "\x03\x02\x01\x00" +
	"\x07\x0a\x01\x06_start\x00\x00" + "\x0a\x09\x01\x07\x00\x03\x40\x0c\x00\x0b\x0b")

// ward is a node with two functions in the namespace of the attacks, and one in
// another.
type ward struct {
	*rig
	one, two, other string
	otherPID        int
}

func newWard(t *testing.T) *ward {
	r := newRig(t, settings(t))
	w := &ward{rig: r}
	elsewhere := *r
	var err error
	if elsewhere.Client, err = nex.NewClient(r.nc, "other"); err != nil {
		t.Fatal(err)
	}
	w.other = elsewhere.mustDeployJS(t, "other", "t.other", echo)
	w.one, w.two = r.mustDeployJS(t, "one", "t.one", echo), r.mustDeployJS(t, "two", "t.two", echo)
	w.otherPID = w.pid(t, w.other)
	return w
}

// pid finds the process of the agent that has a workload.
func (w *ward) pid(t *testing.T, id string) int {
	t.Helper()
	for _, pid := range agents(t, w.dir) {
		if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid), "cwd", id)); err == nil {
			return pid
		}
	}
	t.Fatalf("no agent has workload %s", id)
	return 0
}

// bomb deploys an attack, which begins with the payload "now".
func (w *ward) bomb(t *testing.T, a attack) (id string) {
	t.Helper()
	typ, code := nex.V8, []byte(`(subject, payload) => { if (payload.length === 0) return "fine"; `+a.body+` }`)
	if a.body == "" {
		typ, code = nex.Wasm, endlessWasm
	}
	u := w.upload(t, a.name, typ, code)
	u.TriggerSubjects, u.Settings = []string{"t." + a.name}, nex.Settings{FunctionTimeoutMS: cmp.Or(a.timeout, 300)}
	reply, err := w.deploy(t, u)
	if err != nil {
		t.Fatal(err)
	}
	return reply.ID
}

// fire attacks, and checks the answer and that the others answer soon.
func (w *ward) fire(t *testing.T, a attack) {
	t.Helper()
	start := time.Now()
	m := w.call(t, "t."+a.name, []byte("now"))
	answered := time.Since(start)
	var e nex.Error
	if err := json.Unmarshal(m.Data, &e); err != nil || !slices.Contains(a.want, e.Code) {
		t.Errorf("answered %.200q, want %v", m.Data, a.want)
	}
	if slices.Equal(a.want, []nex.Code{nex.Timeout}) && answered > time.Second {
		t.Errorf("answered after %s", answered)
	}
	took := w.well(t)
	t.Logf("answered after %s with %s, the others %s later", answered.Round(time.Millisecond), e.Code, took.Round(time.Millisecond))
	if took > 2*time.Second {
		t.Errorf("the others answered %s later", took)
	}
}

// well waits until all others answer, and returns how long that took.
func (w *ward) well(t *testing.T) time.Duration {
	t.Helper()
	start := time.Now()
	for _, subject := range []string{"t.one", "t.two", "t.other"} {
		for {
			m := w.call(t, subject, []byte("hi"))
			if string(m.Data) == "hi" {
				break
			}
			if time.Since(start) > nextest.Patience { // it met the end of the machine
				t.Fatalf("%s answers %q", subject, m.Data)
			}
		}
	}
	return time.Since(start)
}

// exile waits until an offender was named and is back.
func (w *ward) exile(t *testing.T, name string) {
	t.Helper()
	for {
		var r nex.WorkloadRestarting
		if err := w.await(t, r).DataAs(&r); err != nil {
			t.Fatal(err)
		}
		if r.Offender != (r.Name == name) {
			t.Errorf("restart %+v", r)
		}
		if r.Name == name {
			break
		}
	}
	for {
		var d nex.WorkloadDeployed
		if err := w.await(t, d).DataAs(&d); err != nil {
			t.Fatal(err)
		}
		if d.Name == name {
			return
		}
	}
}

func TestFunctionsHurtOnlyThemselves(t *testing.T) {
	w := newWard(t)
	for _, a := range append(attacks, attack{"wasm", "", []nex.Code{nex.Timeout}, false, 0}) {
		t.Run(a.name, func(t *testing.T) {
			id := w.bomb(t, a)
			before := w.pid(t, w.one)
			if a.dies && w.pid(t, id) != before {
				t.Fatal("it begins elsewhere")
			}
			w.fire(t, a)
			if a.dies {
				w.exile(t, a.name)
				w.well(t) // the others may come back later
				if bomb, one, two := w.pid(t, id), w.pid(t, w.one), w.pid(t, w.two); bomb == one || one != two || one == before {
					t.Errorf("the bomb runs in agent %d, the others in %d and %d, before in %d", bomb, one, two, before)
				}
				before = w.pid(t, w.one)
				w.fire(t, a) // it is alone now, and nobody notices
				w.exile(t, a.name)
			}
			if w.pid(t, w.one) != before {
				t.Error("the others changed machines")
			}
			if w.pid(t, w.other) != w.otherPID {
				t.Error("the other namespace changed machines")
			}
			if err := w.stop(t, a.name, id); err != nil {
				t.Error(err)
			}
		})
	}
}
