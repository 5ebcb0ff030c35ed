package fcemu

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// linkPort is the port of the host that a guest's link is connected to.
const linkPort = 1024

// settingsFile is beside the programs: the real jailer leaves its child no
// environment, and Firecracker has none of these settings.
const settingsFile = "emulator.json"

// settings are what an emulator is told besides what Firecracker is.
type settings struct {
	Version string `json:"version"` // that it says it has, as 1.12.0
	Spec    string `json:"spec"`    // path of swagger.yaml
	QEMU    string `json:"qemu"`    // path of qemu-system-x86_64
}

// The names of the programs.
const (
	firecrackerName = "firecracker"
	jailerName      = "jailer"
)

// Shim runs the program that args[0] names, if that is one of the two, and returns
// its exit code. Call it first in main.
func Shim(args []string) (code int, was bool) {
	var run func(settings, []string, io.Writer) error
	switch filepath.Base(args[0]) {
	case firecrackerName:
		run = emulate
	case jailerName:
		run = jail
	default:
		return 0, false
	}
	err := func() error {
		s, err := readSettings(args[0])
		if err != nil {
			return err
		}
		return run(s, args[1:], os.Stdout)
	}()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(args[0]), err)
		return 1, true
	}
	return 0, true
}

func readSettings(program string) (settings, error) {
	var s settings
	data, err := os.ReadFile(filepath.Join(filepath.Dir(program), settingsFile))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(data, &s)
}

// option says what an option of a command line is.
type option struct {
	flag     bool // it has no value
	many     bool // it may be given again
	required bool
}

// parse reads a command line as Firecracker and its jailer do: --name value, never
// --name=value, and what is after -- is extra.
func parse(args []string, options map[string]option) (values map[string][]string, extra []string, err error) {
	values = map[string][]string{}
	for len(args) > 0 {
		if args[0] == "--" {
			extra = args[1:]
			break
		}
		name, dashed := strings.CutPrefix(args[0], "--")
		o, known := options[name]
		if !dashed || !known {
			return nil, nil, fmt.Errorf("found argument %q which wasn't expected", args[0])
		}
		if len(values[name]) > 0 && !o.many {
			return nil, nil, fmt.Errorf("the argument --%s was provided more than once", name)
		}
		if args = args[1:]; o.flag {
			values[name] = []string{""}
			continue
		}
		if len(args) == 0 || strings.HasPrefix(args[0], "--") {
			return nil, nil, fmt.Errorf("the argument --%s requires a value", name)
		}
		values[name] = append(values[name], args[0])
		args = args[1:]
	}
	for name, o := range options {
		if o.required && len(values[name]) == 0 {
			return nil, nil, fmt.Errorf("the argument --%s is required", name)
		}
	}
	return values, extra, nil
}

// one returns the value of an option, "" for none.
func one(values map[string][]string, name string) string {
	if v := values[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// checkInstanceID holds an id against Firecracker's rule.
func checkInstanceID(id string) error {
	if id == "" || len(id) > 64 || strings.ContainsFunc(id, func(r rune) bool { return !isAlphanumeric(r) && r != '-' }) {
		return fmt.Errorf("invalid instance id %q: 1 to 64 letters, digits and hyphens", id)
	}
	return nil
}

func isAlphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}
