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

func TestServiceSettings(t *testing.T) {
	defaults := nex.Settings{Restart: nex.Restart{Policy: nex.RestartNever, ResetMS: 10}, Resources: nex.Resources{CPUs: 1, PIDs: 50}, Ready: nex.Ready{AfterMS: 5}}
	ceilings := nex.Settings{Resources: nex.Resources{CPUs: 0.5, MemoryMiB: 100, PIDs: 100}, Restart: nex.Restart{MaxAttempts: 9}}
	for name, c := range map[string]struct {
		asked string
		want  string // of a service; "" for a refusal
		code  nex.Code
	}{
		"nothing": {`{}`, `{"resources":{"cpus":0.5,"memory_mib":100,"pids":50},"restart":{"policy":"never","max_attempts":9,"reset_ms":10},"ready":{"after_ms":5}}`, ""},
		"all": {`{"resources":{"cpus":0.1,"memory_mib":1,"pids":2,"files":3,"disk_mib":4},"restart":{"policy":"always","max_attempts":1,"reset_ms":2},"ready":{"tcp_port":80,"http_path":"/a?b","within_ms":7}}`,
			`{"resources":{"cpus":0.1,"memory_mib":1,"pids":2,"files":3,"disk_mib":4},"restart":{"policy":"always","max_attempts":1,"reset_ms":2},"ready":{"tcp_port":80,"http_path":"/a?b","within_ms":7}}`, ""},
		"a policy as a word":  {`{"restart":"on-failure"}`, `{"resources":{"cpus":0.5,"memory_mib":100,"pids":50},"restart":{"policy":"on-failure","max_attempts":9,"reset_ms":10},"ready":{"after_ms":5}}`, ""},
		"too many processors": {`{"resources":{"cpus":0.6}}`, "", nex.Denied},
		"hardly a processor":  {`{"resources":{"cpus":0.001}}`, "", nex.Invalid},
		"negative processors": {`{"resources":{"cpus":-1}}`, "", nex.Invalid},
		"too much memory":     {`{"resources":{"memory_mib":101}}`, "", nex.Denied},
		"negative files":      {`{"resources":{"files":-1}}`, "", nex.Invalid},
		"too many attempts":   {`{"restart":{"policy":"always","max_attempts":10}}`, "", nex.Denied},
		"ready in two ways":   {`{"ready":{"tcp_port":80,"nats_subject":"a"}}`, "", nex.Invalid},
		"ready in no way":     {`{"ready":{"within_ms":80}}`, "", nex.Invalid},
		"path without a port": {`{"ready":{"http_path":"/","nats_subject":"a"}}`, "", nex.Invalid},
		"path of two lines":   {`{"ready":{"tcp_port":80,"http_path":"/ HTTP/1.1\r\nHost: x"}}`, "", nex.Invalid},
		"path without a root": {`{"ready":{"tcp_port":80,"http_path":"x"}}`, "", nex.Invalid},
		"no port":             {`{"ready":{"tcp_port":65536}}`, "", nex.Invalid},
		"wildcards":           {`{"ready":{"nats_subject":"a.>"}}`, "", nex.Invalid},
		"odd subject":         {`{"ready":{"nats_subject":"a b"}}`, "", nex.Invalid},
		"odd micro service":   {`{"ready":{"micro_service":"a.b"}}`, "", nex.Invalid},
		"late from the start": {`{"ready":{"after_ms":10,"within_ms":10}}`, "", nex.Invalid},
		"too often":           {`{"ready":{"tcp_port":1,"every_ms":1}}`, "", nex.Invalid},
		"negative timeout":    {`{"ready":{"tcp_port":1,"timeout_ms":-1}}`, "", nex.Invalid},
	} {
		var asked nex.Settings
		if err := json.Unmarshal([]byte(c.asked), &asked); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := asked.For(nex.Native, defaults, ceilings)
		text, _ := json.Marshal(got)
		if nex.CodeOf(err) != c.code || err == nil && string(text) != c.want {
			t.Errorf("%s: %s, %v; want %s, %s", name, text, err, c.want, c.code)
		}
		if c.asked == "{}" {
			continue
		}
		if _, err := asked.For(nex.V8, defaults, ceilings); err == nil {
			t.Errorf("%s: a function may have it", name)
		}
	}
	for _, text := range []string{`"sometimes"`, `{"policy":"sometimes"}`, `1`} {
		if err := json.Unmarshal([]byte(text), new(nex.Restart)); err == nil {
			t.Errorf("%s is a restart policy", text)
		}
	}
}

func TestEssentialMeansOnFailure(t *testing.T) {
	for _, c := range []struct{ asked, want nex.RestartPolicy }{{"", nex.RestartOnFailure}, {nex.RestartAlways, nex.RestartAlways}} {
		got, err := nex.Settings{Restart: nex.Restart{Policy: c.asked}}.WithEssential(true)
		if err != nil || got.Restart.Policy != c.want {
			t.Errorf("%q: %q, %v", c.asked, got.Restart.Policy, err)
		}
	}
	if got, err := (nex.Settings{}).WithEssential(false); err != nil || got.Restart.Policy != "" {
		t.Errorf("not essential: %q, %v", got.Restart.Policy, err)
	}
	if _, err := (nex.Settings{Restart: nex.Restart{Policy: nex.RestartNever}}).WithEssential(true); nex.CodeOf(err) != nex.Invalid {
		t.Errorf("essential and never: %v", err)
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
