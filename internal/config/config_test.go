package config_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"nex"
	"nex/internal/config"
)

// TestGood parses every testdata/*.good.json. What it must give stands beside
// it in *.good.txt: the settings that differ from the defaults, then the
// warnings.
func TestGood(t *testing.T) {
	for name, data := range cases(t, ".good.json") {
		t.Run(name, func(t *testing.T) {
			cfg, warnings, err := config.Parse(data, "config.json")
			if err != nil {
				t.Fatal(err)
			}
			got := differences(cfg)
			for _, w := range warnings {
				got += fmt.Sprintln("warning:", w)
			}
			want, err := os.ReadFile(filepath.Join("testdata", name+".good.txt"))
			if err != nil || got != string(want) {
				t.Errorf("got:\n%s\nwant (%v):\n%s", got, err, want)
			}
		})
	}
}

// TestBad parses every testdata/*.bad.json. The error must name the file and
// hold the text of *.bad.err beside it.
func TestBad(t *testing.T) {
	for name, data := range cases(t, ".bad.json") {
		t.Run(name, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join("testdata", name+".bad.err"))
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = config.Parse(data, "config.json")
			if err == nil {
				t.Fatalf("no error; want %s", want)
			}
			got := err.Error()
			if !strings.HasPrefix(got, "config.json:") || !strings.Contains(got, strings.TrimSpace(string(want))) {
				t.Errorf("got:  %s\nwant: %s", got, want)
			}
		})
	}
}

// cases returns the files of testdata with the given ending, by name without it.
func cases(t *testing.T, ending string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", "*"+ending))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no testdata/*%s (%v)", ending, err)
	}
	found := map[string][]byte{}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		found[strings.TrimSuffix(filepath.Base(p), ending)] = data
	}
	return found
}

// differences lists the fields of cfg that are not as by default.
func differences(cfg config.Config) string {
	var b strings.Builder
	got, usual := reflect.ValueOf(cfg), reflect.ValueOf(config.Default())
	for i := range got.NumField() {
		if !reflect.DeepEqual(got.Field(i).Interface(), usual.Field(i).Interface()) {
			fmt.Fprintf(&b, "%s = %s\n", got.Type().Field(i).Name, shown(got.Field(i).Interface()))
		}
	}
	return b.String()
}

// shown writes a value as text; settings as JSON, for they hold a pointer, and
// workloads, for they hide what may be secret.
func shown(v any) string {
	switch v.(type) {
	case nex.Settings, []config.Autostart:
		data, err := json.Marshal(v)
		if err == nil {
			return string(data)
		}
	}
	return fmt.Sprintf("%+v", v)
}

func TestUnknownKeyTextIsExact(t *testing.T) {
	_, _, err := config.Parse([]byte(`{"machine_pol_size": 1}`), "config.json")
	const want = `config.json: unknown key "machine_pol_size"; did you mean "machine_pool_size"?`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestSeedGivenAsIssuerIsNotPrinted(t *testing.T) {
	const seed = "SAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAHT5A"
	_, _, err := config.Parse([]byte(`{"valid_issuers": ["`+seed+`"]}`), "config.json")
	if err == nil || strings.Contains(err.Error(), seed) {
		t.Errorf("got %v, want an error without the seed", err)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	_, _, err := config.Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("missing file: got %v, want fs.ErrNotExist", err)
	}
	for _, want := range []string{"open " + path + ": no such file or directory", "nex node preflight --init sandbox|nosandbox --config " + path, "or name another with --config"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing file: %q lacks %q", err, want)
		}
	}
	if err := os.WriteFile(path, []byte(`{"function_timeout_ms": 1500}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config.Load(path)
	if err != nil || cfg.Defaults.FunctionTimeoutMS != 1500 {
		t.Errorf("got %v, %v; want 1500", cfg.Defaults.FunctionTimeoutMS, err)
	}
	if err := os.WriteFile(path, []byte(`{`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err = config.Load(path); err == nil || !strings.HasPrefix(err.Error(), path+":1:") {
		t.Errorf("got %v, want an error that begins with the file and the line", err)
	}
}

func TestConfigsShareNothing(t *testing.T) {
	first, _, err := config.Parse([]byte(`{}`), "config.json")
	if err != nil {
		t.Fatal(err)
	}
	first.Tags["a"], first.WorkloadTypes[0], first.DenyTriggerSubjects[0] = "b", "x", "x"
	second, _, err := config.Parse([]byte(`{}`), "config.json")
	if err != nil || !reflect.DeepEqual(second, config.Default()) {
		t.Errorf("got %+v, %v after the first was changed; want the defaults", second, err)
	}
}

// TestKeysAreConsistent checks the table itself.
func TestKeysAreConsistent(t *testing.T) {
	byPath := map[string]config.Key{}
	for _, k := range config.Keys() {
		if _, twice := byPath[k.Path]; twice {
			t.Errorf("%s stands twice in the table", k.Path)
		}
		byPath[k.Path] = k
	}
	for _, k := range byPath {
		if k.Status == config.Alias && (byPath[k.Note].Path == "" || byPath[k.Note].Kind != k.Kind) {
			t.Errorf("%s stands for %q, which is not a key of its type", k.Path, k.Note)
		}
		if k.Status == config.Never && k.Note == "" {
			t.Errorf("%s: say why it has no meaning", k.Path)
		}
	}
}

func TestReferenceNamesEveryKey(t *testing.T) {
	var b strings.Builder
	if err := config.WriteReference(&b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	for _, k := range config.Keys() {
		if !slices.ContainsFunc(lines, func(l string) bool {
			return strings.HasPrefix(l, k.Path+" ") && strings.Contains(l, string(k.Status)) && strings.Contains(l, k.Note)
		}) {
			t.Errorf("no line tells of %s", k.Path)
		}
	}
}

func FuzzParse(f *testing.F) {
	paths, _ := filepath.Glob(filepath.Join("testdata", "*.json"))
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, _, err := config.Parse(data, "config.json")
		if err != nil {
			return
		}
		if cfg.PoolSize < 0 || cfg.Tags == nil || len(cfg.WorkloadTypes) == 0 || cfg.Sandbox == "" ||
			cfg.HandshakeTimeout < 0 || cfg.Template.VCPUs <= 0 || cfg.Defaults.FunctionTimeoutMS <= 0 {
			t.Errorf("accepted %q as %+v", data, cfg)
		}
		for _, always := range config.Default().DenyTriggerSubjects {
			if !slices.Contains(cfg.DenyTriggerSubjects, always) {
				t.Errorf("accepted %q without denying %s", data, always)
			}
		}
	})
}
