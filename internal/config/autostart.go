package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"

	"nex"
)

// Autostart is a workload that the node starts itself.
type Autostart struct {
	Namespace string
	nex.Workload
}

// String names the workload; its environment may hold secrets.
func (a Autostart) String() string { return fmt.Sprintf("%s/%s (%s)", a.Namespace, a.Name, a.Type) }

const workloads = "autostart.workloads[]"

// autostartKeys lists the keys of the workloads that start with the node.
func autostartKeys() []Key {
	keys := []Key{
		{"autostart", Object, Works, "workloads that the node starts", nil},
		{"autostart.workloads", List, Works, "in this order; one that does not start is tried again and holds up no other", nil},
		{workloads, Object, Works, "as a request has them, and held to the same rules; the node signs for them", func(d *draft) any {
			d.Autostart = append(d.Autostart, Autostart{})
			return &d.Autostart[len(d.Autostart)-1]
		}},
		{workloads + ".name", Text, Works, "of letters, digits, - and _", nil},
		{workloads + ".namespace", Text, Works, "(default default)", nil},
		{workloads + ".type", Text, Works, "native, v8 or wasm", nil},
		{workloads + ".location", Text, Works, "of the artifact, as nats://BUCKET/key; it may come later", nil},
		{workloads + ".jsdomain", Text, Works, "JetStream domain of the bucket", nil},
		{workloads + ".sha256", Text, Works, "of the artifact, in lowercase hex; no other is started then", nil},
		{workloads + ".description", Text, Works, "for people", nil},
		{workloads + ".argv", Texts, Works, "arguments of a service", nil},
		{workloads + ".environment", TextMap, Works, "", nil},
		{workloads + ".essential", Bool, Works, "start a service again when it fails", nil},
		{workloads + ".trigger_subjects", Texts, Works, "of a function", nil},
	}
	return append(keys, settingKeys(workloads)...)
}

// UnmarshalJSON implements [json.Unmarshaler].
func (a *Autostart) UnmarshalJSON(data []byte) error {
	e := struct {
		Name            string            `json:"name"`
		Namespace       string            `json:"namespace"`
		Type            nex.WorkloadType  `json:"type"`
		Location        json.RawMessage   `json:"location"`
		JSDomain        string            `json:"jsdomain"`
		SHA256          string            `json:"sha256"`
		Description     string            `json:"description"`
		Argv            []string          `json:"argv"`
		Environment     map[string]string `json:"environment"`
		Essential       bool              `json:"essential"`
		TriggerSubjects []string          `json:"trigger_subjects"`
		nex.Settings
	}{Namespace: nex.DefaultNamespace}
	if err := json.Unmarshal(data, &e); err != nil {
		return err
	}
	a.Namespace = e.Namespace
	a.Workload = nex.Workload{
		Name: e.Name, Type: e.Type, JSDomain: e.JSDomain, SHA256: e.SHA256, Description: e.Description, Argv: e.Argv,
		Environment: e.Environment, Essential: e.Essential, TriggerSubjects: e.TriggerSubjects, Settings: e.Settings,
	}
	if len(e.Location) == 0 || bytes.Equal(e.Location, []byte("null")) {
		return nil // which is said later, with what else is missing
	}
	var location string
	if err := json.Unmarshal(e.Location, &location); err != nil {
		return err
	}
	var err error
	a.Location, err = nex.ParseLocation(location)
	return err
}

var digest = regexp.MustCompile("^[0-9a-f]{64}$")

// autostart completes the workloads that start with the node, and reports the
// first that this node could never start.
func autostart(cfg Config) ([]Autostart, error) {
	if limit := cfg.Limits.MaxWorkloads; limit > 0 && len(cfg.Autostart) > limit {
		return nil, fmt.Errorf(`"autostart.workloads" has %d, and "node_limits.max_workloads" is %d`, len(cfg.Autostart), limit)
	}
	for i := range cfg.Autostart {
		a := &cfg.Autostart[i]
		if a.Type == formerNative {
			a.Type = nex.Native
		}
		if a.Type.IsFunction() {
			a.Essential = false // functions always come back
		}
		if key, why := a.fault(cfg); why != "" {
			return nil, fmt.Errorf(`"autostart.workloads[%d]%s" %s`, i, key, why)
		}
		asked, err := a.Settings.WithEssential(a.Essential)
		if err != nil {
			return nil, fmt.Errorf(`"autostart.workloads[%d]": %w`, i, err)
		}
		if _, err := asked.For(a.Type, cfg.Defaults, cfg.Ceilings); err != nil {
			return nil, fmt.Errorf(`"autostart.workloads[%d]": %w`, i, err)
		}
	}
	return cfg.Autostart, nil
}

// fault says which key cannot be as it is, and why; "" if all can.
func (a Autostart) fault(cfg Config) (key, why string) {
	switch {
	case a.Name == "":
		return ".name", "is missing"
	case !nex.ValidName(a.Name):
		return ".name", fmt.Sprintf("cannot be %.64q: it must match %s", a.Name, nex.NamePattern)
	case !nex.ValidToken(a.Namespace) || a.Namespace == nex.SystemNamespace:
		return ".namespace", fmt.Sprintf("cannot be %.64q, which cannot hold workloads", a.Namespace)
	case a.Type == "":
		return ".type", "is missing: choose from " + list(cfg.WorkloadTypes)
	case !slices.Contains(cfg.WorkloadTypes, a.Type):
		return ".type", fmt.Sprintf("cannot be %.64q here; choose from %s", a.Type, list(cfg.WorkloadTypes))
	case a.Location.Bucket() == "":
		return ".location", "is missing: say where the artifact is, as nats://BUCKET/key"
	case a.JSDomain != "" && !nex.ValidToken(a.JSDomain):
		return ".jsdomain", "is no JetStream domain"
	case a.SHA256 == "" && cfg.RequireDigest:
		return ".sha256", `is missing: "require_digest" asks for it`
	case a.SHA256 != "" && !digest.MatchString(a.SHA256):
		return ".sha256", "must have 64 digits of lowercase hex"
	case !cfg.Sandbox.AtLeast(a.Settings.Sandbox):
		return ".sandbox", fmt.Sprintf("cannot be %q: this node has %q", a.Settings.Sandbox, cfg.Sandbox)
	}
	return a.triggerFault(cfg)
}

func (a Autostart) triggerFault(cfg Config) (key, why string) {
	const name = ".trigger_subjects"
	if n := len(a.TriggerSubjects); a.Type.IsFunction() && n == 0 {
		return name, "is missing: a function needs at least one"
	} else if !a.Type.IsFunction() && n > 0 {
		return name, "is for functions, not for services"
	}
	for i, s := range a.TriggerSubjects {
		if err := nex.ValidTrigger(s); err != nil {
			return fmt.Sprintf("%s[%d]", name, i), "cannot be: " + err.Error()
		}
		for _, denied := range cfg.DenyTriggerSubjects {
			if nex.SubjectsOverlap(s, denied) {
				return fmt.Sprintf("%s[%d]", name, i), fmt.Sprintf("cannot be %q: this node denies %s", s, denied)
			}
		}
	}
	return "", ""
}
