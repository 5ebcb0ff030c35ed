package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/choria-io/fisk"

	"nex"
)

// deployFlags are the settings of a workload that run, devrun and dev share.
type deployFlags struct {
	name      string
	typ       string
	argv      string
	essential bool
	triggers  []string
	env       map[string]string
	settings  nex.Settings
	host      hostAccess

	// Where to run.
	node  string
	tags  map[string]string
	count int
}

func (f *deployFlags) add(cmd *fisk.CmdClause) {
	f.env = map[string]string{}
	s := &f.settings
	cmd.Flag("trigger_subject", "Subject that triggers a function; repeat for several").PlaceHolder("SUBJECT").StringsVar(&f.triggers)
	cmd.Flag("argv", "Arguments of a service, separated by spaces").StringVar(&f.argv)
	cmd.Flag("essential", "The same as --restart on-failure").BoolVar(&f.essential)
	cmd.Flag("function_timeout", "How long one call of a function may take (what the node says if not given)").PlaceHolder("4s").SetValue((*milliseconds)(&s.FunctionTimeoutMS))
	cmd.Flag("function_memory_mib", "Memory of one instance of a function (likewise)").PlaceHolder("128").IntVar(&s.FunctionMemoryMiB)
	cmd.Flag("max_concurrency", "Calls of a function that run at once (likewise)").PlaceHolder("N").IntVar(&s.MaxConcurrency)
	cmd.Flag("broadcast", "Every copy of a function answers every message (likewise)").SetValue(choice{&s.Broadcast})
	cmd.Flag("stop_grace", "How long a service may take to end before it is killed (likewise)").PlaceHolder("10s").SetValue((*milliseconds)(&s.StopGraceMS))
	cmd.Flag("sandbox", "Weakest sandbox the workload accepts: none, os, microvm, qemu, firecracker").PlaceHolder("KIND").SetValue((*sandbox)(&s.Sandbox))
	addServiceFlags(cmd, s)
	cmd.Flag("hs_url", "NATS server behind the workload's host services (what the node says if not given)").PlaceHolder("URL").StringVar(&f.host.url)
	cmd.Flag("hs_jwt", "JWT of the user there").Envar("NEX_HS_JWT").PlaceHolder("JWT").StringVar(&f.host.jwt)
	cmd.Flag("hs_seed", "Seed of the user there; other users of this machine see flags, but not variables").Envar("NEX_HS_SEED").PlaceHolder("SEED").StringVar(&f.host.seed)
	cmd.Flag("engine", "Engine of a JavaScript function: v8, quickjs (what the node says if not given)").PlaceHolder("ENGINE").SetValue((*engine)(&s.Engine))
}

// addPlace adds the flags that say where to run, and how many copies.
func (f *deployFlags) addPlace(cmd *fisk.CmdClause) {
	f.tags = map[string]string{}
	cmd.Flag("tag", "Tag that the node must have; repeat for several").PlaceHolder("KEY=VALUE").StringMapVar(&f.tags)
	cmd.Flag("count", "How many copies to run, spread over the nodes").Default("1").IntVar(&f.count)
}

// maxCopies is how many copies one command may ask for.
const maxCopies = 1000

// check refuses what no node would take of a workload of type t.
func (f *deployFlags) check(name string, t nex.WorkloadType) error {
	switch {
	case f.count < 1 || f.count > maxCopies:
		return fmt.Errorf("--count must be 1 to %d", maxCopies)
	case t.IsFunction() && f.essential:
		return fmt.Errorf("%s is a function: --essential is for services", name)
	case t.IsFunction() && len(f.triggers) == 0:
		return fmt.Errorf("cannot start a function-type workload without specifying at least one trigger subject: add --trigger_subject SUBJECT")
	case !t.IsFunction() && len(f.triggers) > 0:
		return fmt.Errorf("%s is a service: --trigger_subject is for functions", name)
	}
	for _, t := range f.triggers {
		if err := nex.ValidTrigger(t); err != nil {
			return err
		}
	}
	if f.host.url == "" && f.host != (hostAccess{}) {
		return fmt.Errorf("--hs_jwt and --hs_seed need --hs_url")
	}
	if a := f.host.access(); a != nil {
		if err := a.Validate(); err != nil {
			return fmt.Errorf("--hs_url, --hs_jwt, --hs_seed: %w", err)
		}
	}
	asked, err := f.settings.WithEssential(f.essential)
	if err == nil {
		_, err = asked.For(t, nex.Settings{}, nex.Settings{})
	}
	return err
}

// workload is what the flags say of a workload.
func (f *deployFlags) workload(name string, t nex.WorkloadType) nex.Workload {
	return nex.Workload{
		Name: name, Type: t, Argv: strings.Fields(f.argv), Environment: f.env, Essential: f.essential,
		TriggerSubjects: f.triggers, Settings: f.settings, HostServices: f.host.access(),
	}
}

// hostAccess is the NATS behind a workload's host services.
type hostAccess struct{ url, jwt, seed string }

// access is nil if nothing was given.
func (h hostAccess) access() *nex.NATSAccess {
	if h.url == "" {
		return nil
	}
	return &nex.NATSAccess{URL: h.url, JWT: h.jwt, Seed: nex.Secret(h.seed)}
}

// auction describes the workload that is to be made of src to all nodes. Keys
// without an issuer stand for any.
func (f *deployFlags) auction(src source, keys nex.Keys) (nex.AuctionRequest, error) {
	r := nex.AuctionRequest{
		WorkloadTypes: []nex.WorkloadType{src.typ}, OS: src.os, Arch: src.arch, Tags: f.tags,
		Bytes: src.size, TriggerSubjects: f.triggers, Settings: f.settings,
	}
	if src.dynamic {
		no := false
		r.Sandboxed = &no
	}
	if keys.Issuer == nil {
		return r, nil
	}
	var err error
	if r.Issuer, err = keys.Issuer.PublicKey(); err != nil {
		err = fmt.Errorf("read the issuer's public key: %w", err)
	}
	return r, err
}

// milliseconds is a flag for a duration.
type milliseconds int

func (m *milliseconds) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err == nil && d < time.Millisecond {
		return fmt.Errorf("%s is less than a millisecond", s)
	}
	*m = milliseconds(d.Milliseconds())
	return err
}

func (m *milliseconds) String() string {
	if *m == 0 {
		return ""
	}
	return (time.Duration(*m) * time.Millisecond).String()
}

// sandbox is a flag for a kind of sandbox.
type sandbox nex.Sandbox

func (k *sandbox) Set(s string) error { return (*nex.Sandbox)(k).UnmarshalText([]byte(s)) }
func (k *sandbox) String() string     { return string(*k) }

// engine is a flag for a JavaScript engine.
type engine nex.Engine

func (e *engine) Set(s string) error { return (*nex.Engine)(e).UnmarshalText([]byte(s)) }
func (e *engine) String() string     { return string(*e) }

// choice is a flag for yes, no, or not given.
type choice struct{ into **bool }

func (c choice) Set(s string) error {
	yes, err := strconv.ParseBool(s)
	*c.into = &yes
	return err
}

func (c choice) String() string {
	if c.into == nil || *c.into == nil {
		return ""
	}
	return strconv.FormatBool(**c.into)
}

// IsBoolFlag and BoolFlagIsNegatable tell the parser of --x and --no-x.
func (choice) IsBoolFlag() bool          { return true }
func (choice) BoolFlagIsNegatable() bool { return true }
