package config_test

import (
	"reflect"
	"strings"
	"testing"

	"nex"
	"nex/internal/config"
)

// TestEverySettingStartsWithTheNode: what a request may say of how its workload
// runs, the configuration may, and reads it.
func TestEverySettingStartsWithTheNode(t *testing.T) {
	kinds := map[string]config.Kind{}
	for _, k := range config.Keys() {
		if name, ok := strings.CutPrefix(k.Path, "autostart.workloads[]."); ok && k.Status == config.Works {
			kinds[name] = k.Kind
		}
	}
	values := map[config.Kind]string{config.Bool: "true", config.Positive: "7", config.Number: "0.5", config.Texts: `["a"]`, config.TextMap: `{"a":"b"}`, config.Object: "{}"}
	for f := range reflect.TypeFor[nex.Settings]().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		value := values[kinds[name]]
		if kinds[name] == config.Text {
			value = map[string]string{"sandbox": `"none"`, "engine": `"quickjs"`}[name]
		}
		if value == "" || value == "{}" {
			continue // a word of its own, or a group: the tests of what it means have it
		}
		var read config.Autostart
		if err := read.UnmarshalJSON([]byte(`{"` + name + `": ` + value + `}`)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if reflect.ValueOf(read.Settings).FieldByIndex(f.Index).IsZero() {
			t.Errorf("%s of %s is read and lost", name, value)
		}
	}
	for _, want := range []string{"function_timeout_ms", "broadcast", "stop_grace_ms", "sandbox", "engine"} {
		if kinds[want] == "" {
			t.Errorf("there is no key %s", want)
		}
	}
}

// TestAutostartHidesTheEnvironment: a configuration that is printed tells no
// secret.
func TestAutostartHidesTheEnvironment(t *testing.T) {
	a := config.Autostart{Namespace: "ns", Workload: nex.Workload{Name: "w", Type: nex.V8, Environment: map[string]string{"TOKEN": "s3cret"}}}
	if got := a.String(); got != "ns/w (v8)" {
		t.Errorf("got %s", got)
	}
}
