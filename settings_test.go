package nex_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"nex"
)

func TestSettingsFor(t *testing.T) {
	yes, no := true, false
	defaults := nex.Settings{FunctionTimeoutMS: 4000, FunctionMemoryMiB: 128, StopGraceMS: 10_000}
	ceilings := nex.Settings{FunctionTimeoutMS: 5000, FunctionMemoryMiB: 64, MaxConcurrency: 10, StopGraceMS: 20_000}
	for name, c := range map[string]struct {
		t              nex.WorkloadType
		asked          nex.Settings
		broadcast, may *bool      // of the node: default and ceiling
		engine         nex.Engine // of the node
		want           nex.Settings
		code           nex.Code
	}{
		"a function that asks for nothing": {t: nex.V8, want: nex.Settings{FunctionTimeoutMS: 4000, FunctionMemoryMiB: 64, MaxConcurrency: 10}},
		"a service that asks for nothing":  {t: nex.Native, want: nex.Settings{StopGraceMS: 10_000}},
		"up to the ceiling": {t: nex.Wasm, asked: nex.Settings{FunctionTimeoutMS: 5000, FunctionMemoryMiB: 1, MaxConcurrency: 10, Broadcast: &yes},
			want: nex.Settings{FunctionTimeoutMS: 5000, FunctionMemoryMiB: 1, MaxConcurrency: 10, Broadcast: &yes}},
		"above the ceiling":           {t: nex.V8, asked: nex.Settings{FunctionTimeoutMS: 5001}, code: nex.Denied},
		"below zero":                  {t: nex.V8, asked: nex.Settings{MaxConcurrency: -1}, code: nex.Invalid},
		"below zero, of another type": {t: nex.V8, asked: nex.Settings{StopGraceMS: -1}, code: nex.Invalid},
		"of services":                 {t: nex.V8, asked: nex.Settings{StopGraceMS: 1}, code: nex.Invalid},
		"of functions":                {t: nex.Native, asked: nex.Settings{MaxConcurrency: 1}, code: nex.Invalid},
		"broadcast of a service":      {t: nex.Native, asked: nex.Settings{Broadcast: &yes}, code: nex.Invalid},
		"no broadcast of a service":   {t: nex.Native, asked: nex.Settings{Broadcast: &no}, want: nex.Settings{StopGraceMS: 10_000, Broadcast: &no}},
		"broadcast by default": {t: nex.V8, broadcast: &yes, may: &yes,
			want: nex.Settings{FunctionTimeoutMS: 4000, FunctionMemoryMiB: 64, MaxConcurrency: 10, Broadcast: &yes}},
		"no broadcast against the default": {t: nex.V8, asked: nex.Settings{Broadcast: &no}, broadcast: &yes,
			want: nex.Settings{FunctionTimeoutMS: 4000, FunctionMemoryMiB: 64, MaxConcurrency: 10, Broadcast: &no}},
		"broadcast forbidden": {t: nex.V8, asked: nex.Settings{Broadcast: &yes}, may: &no, code: nex.Denied},
		"broadcast by default, but forbidden": {t: nex.V8, broadcast: &yes, may: &no,
			want: nex.Settings{FunctionTimeoutMS: 4000, FunctionMemoryMiB: 64, MaxConcurrency: 10}},
		"an engine": {t: nex.V8, asked: nex.Settings{Engine: nex.EngineQuickJS}, engine: nex.EngineV8,
			want: nex.Settings{FunctionTimeoutMS: 4000, FunctionMemoryMiB: 64, MaxConcurrency: 10, Engine: nex.EngineQuickJS}},
		"an engine by default": {t: nex.V8, engine: nex.EngineV8,
			want: nex.Settings{FunctionTimeoutMS: 4000, FunctionMemoryMiB: 64, MaxConcurrency: 10, Engine: nex.EngineV8}},
		"no engine of WebAssembly by default": {t: nex.Wasm, engine: nex.EngineV8,
			want: nex.Settings{FunctionTimeoutMS: 4000, FunctionMemoryMiB: 64, MaxConcurrency: 10}},
		"an engine of WebAssembly": {t: nex.Wasm, asked: nex.Settings{Engine: nex.EngineV8}, code: nex.Invalid},
		"an engine of a service":   {t: nex.Native, asked: nex.Settings{Engine: nex.EngineV8}, code: nex.Invalid},
	} {
		d, l := defaults, ceilings
		d.Engine = c.engine
		d.Broadcast, l.Broadcast = c.broadcast, c.may
		got, err := c.asked.For(c.t, d, l)
		if nex.CodeOf(err) != c.code || err == nil && !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v, %s", name, got, err, c.want, c.code)
		}
	}
}

func TestSandboxAtLeast(t *testing.T) {
	for _, c := range []struct {
		have, least nex.Sandbox
		want        bool
	}{
		{nex.SandboxNone, "", true}, {nex.SandboxNone, nex.SandboxNone, true}, {nex.SandboxNone, nex.SandboxOS, false},
		{nex.SandboxOS, nex.SandboxOS, true}, {nex.SandboxOS, nex.SandboxMicroVM, false},
		{nex.SandboxQEMU, nex.SandboxMicroVM, true}, {nex.SandboxFirecracker, nex.SandboxMicroVM, true},
		{nex.SandboxQEMU, nex.SandboxFirecracker, false}, {nex.SandboxMicroVM, nex.SandboxQEMU, false},
		{"else", nex.SandboxNone, false}, {nex.SandboxFirecracker, "else", false},
	} {
		if got := c.have.AtLeast(c.least); got != c.want {
			t.Errorf("%q at least %q: %t", c.have, c.least, got)
		}
	}
}

func TestUnknownSandboxIsNoRequest(t *testing.T) {
	var s nex.Settings
	if err := json.Unmarshal([]byte(`{"sandbox":"docker"}`), &s); err == nil {
		t.Error("accepted")
	}
}

func TestUnknownEngineIsNoRequest(t *testing.T) {
	for text, want := range map[string]bool{`{"engine":"v8"}`: true, `{"engine":"quickjs"}`: true, `{"engine":""}`: true, `{"engine":"V8"}`: false, `{"engine":"node"}`: false, `{"engine":8}`: false} {
		var s nex.Settings
		if err := json.Unmarshal([]byte(text), &s); (err == nil) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}
