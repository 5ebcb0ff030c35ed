package config

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nkeys"

	"nex"
)

// draft is a configuration as the file gives it, before its settings are held
// against each other.
type draft struct {
	Config
	sandbox    *nex.Sandbox
	noSandbox  *bool
	jailer     *bool // nil is not given
	hostAccess nex.NATSAccess
}

// leastPing is the least time that an agent has to give a sign of life.
const leastPing = 2 * time.Second

// finish checks what the types of the keys do not say and completes the lists.
func (d draft) finish() (Config, error) {
	cfg := d.Config
	var err error
	if cfg.Sandbox, err = chooseSandbox(d.sandbox, d.noSandbox); err != nil {
		return Config{}, err
	}
	if n := cfg.OSNetwork; n != NoNetwork && n != HostNetwork {
		return Config{}, fmt.Errorf(`"os_sandbox": {"network": %q} cannot be; choose none or host`, n)
	}
	cfg.Jailer.Off = d.jailer != nil && !*d.jailer
	if err := cfg.checkMicroVMs(); err != nil {
		return Config{}, err
	}
	if cfg.WorkloadTypes, err = knownTypes(d.WorkloadTypes); err != nil {
		return Config{}, err
	}
	if cfg.DenyTriggerSubjects, err = denied(d.DenyTriggerSubjects); err != nil {
		return Config{}, err
	}
	if cfg.PoolSize > MaxPool {
		return Config{}, fmt.Errorf(`"machine_pool_size" is at most %d`, MaxPool)
	}
	if cfg.MaxMachines > 0 && cfg.MaxMachines < max(cfg.PoolSize, 1) {
		return Config{}, fmt.Errorf(`"max_machines" of %d is less than "machine_pool_size" of %d`, cfg.MaxMachines, cfg.PoolSize)
	}
	cfg.PingTimeout = max(cfg.PingTimeout, leastPing) // files of Nex 0.2.7 have 750 ms, which a busy host may take
	for i, pattern := range d.WorkloadServers {
		if _, err := path.Match(pattern, ""); err != nil || !strings.Contains(pattern, ":") {
			return Config{}, fmt.Errorf(`"workload_nats_servers[%d]" is not host:port, as in "nats.example.com:4222" or "*.example.com:*"`, i)
		}
	}
	if err := signers("valid_issuers", d.ValidIssuers); err != nil {
		return Config{}, err
	}
	if err := signers("admin_issuers", d.AdminIssuers); err != nil {
		return Config{}, err
	}
	if err := network(cfg); err != nil {
		return Config{}, err
	}
	if err := cfg.Host.Validate(); err != nil {
		return Config{}, err
	}
	if cfg.Autostart, err = autostart(cfg); err != nil {
		return Config{}, err
	}
	if cfg.HostAccess, err = access(d.hostAccess); err != nil {
		return Config{}, fmt.Errorf("host_services: %w", err)
	}
	return cfg, nil
}

// The least that a guest boots with, and the most that is no slip.
const (
	leastMemory, mostMemory = 96, 1 << 20
	leastDisk, mostDisk     = 16, 1 << 24
	mostVCPUs               = 64
)

func (c Config) checkMicroVMs() error {
	if !slices.Contains([]string{"kvm", "tcg", "auto"}, c.QEMU.Accel) {
		return fmt.Errorf(`"qemu": {"accel": %q} cannot be; choose kvm, tcg or auto`, c.QEMU.Accel)
	}
	if !slices.Contains([]string{"tap", "user", "none", "auto"}, c.QEMU.Network) {
		return fmt.Errorf(`"qemu": {"network": %q} cannot be; choose tap, user, none or auto`, c.QEMU.Network)
	}
	for _, n := range []struct {
		name           string
		n, least, most int
	}{
		{"vcpu_count", c.Template.VCPUs, 1, mostVCPUs}, {"memsize_mib", c.Template.MemoryMiB, leastMemory, mostMemory},
		{"disk_mib", c.Template.DiskMiB, leastDisk, mostDisk},
	} {
		if n.n < n.least || n.n > n.most {
			return fmt.Errorf(`"machine_template": {%q: %d} cannot be; it is from %d to %d`, n.name, n.n, n.least, n.most)
		}
	}
	for _, b := range []struct {
		name string
		Bucket
	}{{"bandwidth", c.RateLimiters.Bandwidth}, {"iops", c.RateLimiters.IOPS}} {
		if b.Bucket != (Bucket{}) && (b.Size == 0 || b.RefillTime == 0) {
			return fmt.Errorf(`"rate_limiters.%s" needs "size" and "refill_time", both above 0`, b.name)
		}
	}
	return nil
}

// access returns where and who to connect to and as, nil for nothing given. A
// user alone is for the node's own servers, which Nex 0.2.7 meant by no URL.
func access(a nex.NATSAccess) (*nex.NATSAccess, error) {
	if a == (nex.NATSAccess{}) {
		return nil, nil
	}
	complete := a
	if a.URL == "" {
		complete.URL = "nats://node"
	}
	return &a, complete.Validate()
}

// signers checks a list of public keys.
func signers(name string, keys []string) error {
	for i, key := range keys {
		// The value stays out of the text: it may be a seed, given by mistake.
		if !nkeys.IsValidPublicKey(key) || nkeys.IsValidPublicCurveKey(key) {
			return fmt.Errorf(`"%s[%d]" is not the public nkey of a signer, as "A…" of an account`, name, i)
		}
	}
	return nil
}

// chooseSandbox makes one of the two settings for the sandbox. Nil is not given.
func chooseSandbox(kind *nex.Sandbox, none *bool) (nex.Sandbox, error) {
	switch {
	case kind != nil && none != nil && *none != (*kind == nex.SandboxNone):
		return "", fmt.Errorf(`"sandbox": %q and "no_sandbox": %t contradict each other; keep one`, *kind, *none)
	case kind != nil:
		return *kind, nil
	case none != nil && *none:
		return nex.SandboxNone, nil
	}
	return nex.SandboxMicroVM, nil
}

// formerNative is what services were called until Nex 0.2.3.
const formerNative = "elf"

// knownTypes returns types, each once and by its present name; all known ones
// when there are none.
func knownTypes(types []nex.WorkloadType) ([]nex.WorkloadType, error) {
	all := Default().WorkloadTypes
	var kept []nex.WorkloadType
	for i, t := range types {
		if t == formerNative {
			t = nex.Native
		}
		if !slices.Contains(all, t) {
			return nil, fmt.Errorf(`"workload_types[%d]" cannot be %q; choose from %s`, i, t, list(all))
		}
		if !slices.Contains(kept, t) {
			kept = append(kept, t)
		}
	}
	if len(kept) == 0 {
		return all, nil
	}
	return kept, nil
}

// denied returns patterns, each once, and what is always denied.
func denied(patterns []string) ([]string, error) {
	for i, p := range patterns {
		if err := validPattern(p); err != nil {
			return nil, fmt.Errorf(`"deny_trigger_subjects[%d]": %w`, i, err)
		}
	}
	var kept []string
	for _, p := range slices.Concat(patterns, Default().DenyTriggerSubjects) {
		if !slices.Contains(kept, p) {
			kept = append(kept, p)
		}
	}
	return kept, nil
}

// validPattern reports why p cannot be a subject pattern. NATS takes "a*" for
// a plain name, but who denies it means more than that.
func validPattern(p string) error {
	if err := nex.ValidTrigger(p); err != nil {
		return err
	}
	for token := range strings.SplitSeq(p, ".") {
		if len(token) > 1 && strings.ContainsAny(token, "*>") {
			return fmt.Errorf("subject %q: a wildcard must stand alone between dots", p)
		}
	}
	return nil
}

// list writes choices for people.
func list[T ~string](choices []T) string {
	words := make([]string, len(choices))
	for i, c := range choices {
		words[i] = string(c)
	}
	return strings.Join(words, ", ")
}
