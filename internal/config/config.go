// Package config reads the node's configuration file: JSON over built-in
// defaults, checked key by key against one table ([Keys]), so that a
// misspelled, mistyped or contradicting setting is an error with a hint, and a
// setting that does nothing is said to do nothing.
//
// It holds no state: all of it is safe for concurrent use. It never touches
// the network, and no file but the one it is asked to load.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"nex"
	"nex/internal/hostsvc"
)

// Config is a node's settings, complete and checked. It is a plain value:
// whoever holds one may change its own copy.
type Config struct {
	// PoolSize is how many machines are kept ready; 0 starts them on demand.
	PoolSize int
	// MaxMachines is how many machines there may be at once, those kept ready among
	// them; 0 for any number.
	MaxMachines int
	// Sandbox is what machines are made of.
	Sandbox nex.Sandbox
	// OSNetwork is the network of machines whose sandbox is os: [NoNetwork] or
	// [HostNetwork].
	OSNetwork string
	// BestEffort goes on without the parts of a sandbox that the host does not
	// have, and takes workloads with limits that it cannot keep in full.
	BestEffort bool
	// Tags are the operator's labels of this node. Never nil.
	Tags map[string]string
	// WorkloadTypes are the types the node accepts: native, v8, wasm. Never empty.
	WorkloadTypes []nex.WorkloadType
	// DenyTriggerSubjects are the subject patterns that no trigger may overlap.
	// $SYS.>, $JS.>, $KV.>, $O.>, $NEX.> and _INBOX.> are always among them.
	DenyTriggerSubjects []string
	// Limits bound what the node takes.
	Limits Limits
	// Template is what each microVM gets.
	Template Template
	// QEMU says how microVMs of QEMU work.
	QEMU QEMU
	// Jailer confines Firecracker.
	Jailer Jailer
	// RateLimiters bound the disk, and each direction of the network, of each microVM
	// of Firecracker.
	RateLimiters RateLimiters
	// BinPath are directories where programs of microVMs are looked for before PATH.
	BinPath []string
	// ResourceDir is where what microVMs boot is, "" for the node's own image; Kernel,
	// Initramfs and RootFS are for files elsewhere.
	ResourceDir, Kernel, Initramfs, RootFS string
	// HandshakeTimeout is how long a started agent may take to say hello; 0 for what
	// is usual for the machines.
	HandshakeTimeout time.Duration
	// PingTimeout is how long an agent may take to give a sign of life.
	PingTimeout time.Duration
	// Defaults are the settings of workloads that do not ask for others, and
	// Ceilings the most that they may ask for.
	Defaults, Ceilings nex.Settings
	// ValidIssuers are the public nkeys whose workloads are taken; empty for any.
	ValidIssuers []string
	// WorkloadServers are the NATS servers, as host:port with wildcards, that the
	// node connects to when requests ask for it; nil for any.
	WorkloadServers []string
	// AdminIssuers are the public nkeys that may put the node into lame duck
	// mode; empty for anybody, without a signature.
	AdminIssuers []string
	// RequireDigest refuses requests whose claims do not bind the artifact.
	RequireDigest bool
	// RequireBoundClaims refuses claims without a [nex.Binding].
	RequireBoundClaims bool
	// ReplayWindow is how long a request is remembered whose claims do not
	// expire.
	ReplayWindow time.Duration
	// AgentPath is the nex-agent binary; "" looks for it beside nex and in PATH.
	AgentPath string
	// StateDir is where the node keeps its identity and its records; "" is the
	// node's default.
	StateDir string
	// PidFile holds the node's process id while it runs; "" for none.
	PidFile string
	// PublicServer is a NATS server to run in the node; nil for none.
	PublicServer *PublicServer
	// Autostart are the workloads that the node starts itself.
	Autostart []Autostart
	// CNI is the network of microVMs, Egress what services in them may reach, nil
	// for what they need, and EgressNATS where NATS is to them, "" for its usual port of
	// the host; see package vmnet for all.
	CNI        CNI
	Egress     []string
	EgressNATS string
	// Host says what host services there are, and HostAccess which NATS is
	// behind them, nil for the node's own.
	Host       hostsvc.Config
	HostAccess *nex.NATSAccess
}

// CNI says how the network of microVMs is made. What is zero is vmnet's default.
type CNI struct {
	BinPath       []string // directories of plugins
	ConfDir       string   // directory of configurations
	InterfaceName string
	NetworkName   string
	Subnet        netip.Prefix
	Nameservers   []netip.Addr
}

// Limits bound what a node takes. 0 is unlimited.
type Limits struct {
	MaxWorkloads     int   // workloads at once
	MaxTotalBytes    int64 // artifact bytes of all workloads together
	MaxWorkloadBytes int64 // artifact bytes of one workload
}

// Template is what each microVM gets.
type Template struct {
	VCPUs     int
	MemoryMiB int
	DiskMiB   int // of the disk that it writes to
}

// QEMU says how microVMs of QEMU work.
type QEMU struct {
	Accel   string // kvm, tcg or auto
	Network string // tap, user, none or auto
}

// Jailer says how Firecracker is confined by the jailer that comes with it.
type Jailer struct {
	Off        bool
	UID, GID   int      // 0 for others in each machine
	ChrootBase string   // "" for the directories of machines
	Cgroup     []string // as in cpuset.cpus=0-3
}

// RateLimiters bound what a device moves.
type RateLimiters struct{ Bandwidth, IOPS Bucket }

// Bucket holds Size tokens, bytes or operations, and has as many again after RefillTime
// milliseconds. OneTimeBurst comes before that, once. The zero Bucket is no bound.
type Bucket struct{ OneTimeBurst, RefillTime, Size int }

// The networks of a machine whose sandbox is os.
const (
	NoNetwork   = "none" // loopback of its own
	HostNetwork = "host" // the host's
)

// MaxPool is the most machines a node keeps ready.
const MaxPool = 256

// Warning tells of a setting that is understood and does nothing.
type Warning struct {
	Key  string // full path of the key, as in "cni.subnet"
	Text string // what is the matter with it, to be read after the key
}

func (w Warning) String() string { return fmt.Sprintf("%q %s", w.Key, w.Text) }

// Default returns the settings of an empty configuration.
func Default() Config {
	return Config{
		PoolSize:            1,
		Sandbox:             nex.SandboxMicroVM,
		OSNetwork:           NoNetwork,
		Tags:                map[string]string{},
		WorkloadTypes:       []nex.WorkloadType{nex.Native, nex.V8, nex.Wasm},
		DenyTriggerSubjects: []string{"$SYS.>", "$JS.>", "$KV.>", "$O.>", "$NEX.>", "_INBOX.>"},
		Template:            Template{VCPUs: 1, MemoryMiB: 256, DiskMiB: 1024},
		QEMU:                QEMU{Accel: "auto", Network: "auto"},
		PingTimeout:         5 * time.Second,
		ReplayWindow:        time.Minute,
		Defaults:            nex.Settings{FunctionTimeoutMS: 4000, FunctionMemoryMiB: 128, StopGraceMS: 10_000, Restart: nex.Restart{Policy: nex.RestartNever, ResetMS: 10_000}},
		Ceilings:            nex.Settings{FunctionTimeoutMS: 600_000, FunctionMemoryMiB: 2048, StopGraceMS: 60_000, Restart: nex.Restart{ResetMS: 3_600_000}},
	}
}

// Load reads the configuration file at path. The error of a missing file wraps
// [fs.ErrNotExist].
func Load(path string) (Config, []Warning, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, nil, fmt.Errorf("load configuration file: %w; nex node preflight --init sandbox|nosandbox --config %s writes one to begin with (nosandbox is for code you trust), or name another with --config", err, path)
	}
	if err != nil {
		return Config{}, nil, fmt.Errorf("load configuration file: %w", err)
	}
	return Parse(data, path)
}

// Parse reads a configuration from JSON. Errors begin with name, the file the
// data came from. Warnings are in the order of their keys in data.
func Parse(data []byte, name string) (Config, []Warning, error) {
	if err := checkSyntax(data); err != nil {
		return Config{}, nil, fmt.Errorf("%s:%w", name, err)
	}
	r := reader{into: draft{Config: Default()}, given: map[string]string{}}
	if err := r.read(schema(), "", bytes.TrimSpace(data)); err != nil {
		return Config{}, nil, fmt.Errorf("%s: %w", name, err)
	}
	cfg, err := r.into.finish()
	if err != nil {
		return Config{}, nil, fmt.Errorf("%s: %w", name, err)
	}
	return cfg, r.warnings, nil
}
