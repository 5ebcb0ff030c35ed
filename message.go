package nex

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nkeys"
)

// WorkloadType names the runtime a workload needs.
type WorkloadType string

// The workload types. Nex up to 0.2.3 calls Native "elf".
const (
	Native WorkloadType = "native" // a long-running executable
	V8     WorkloadType = "v8"     // a JavaScript function, whatever engine runs it
	Wasm   WorkloadType = "wasm"   // a WebAssembly function
)

// IsFunction reports whether workloads of this type run when triggered.
func (t WorkloadType) IsFunction() bool { return t == V8 || t == Wasm }

// Types of reply envelopes.
const (
	PingReplyType     = "io.nats.nex.v1.ping_response"
	AuctionReplyType  = "io.nats.nex.v1.auction_response"
	InfoReplyType     = "io.nats.nex.v1.info_response"
	DeployReplyType   = "io.nats.nex.v1.run_response"
	StopReplyType     = "io.nats.nex.v1.stop_response"
	LameDuckReplyType = "io.nats.nex.v1.lameduck_response"
)

// Envelope wraps every reply of a node. A failure has an error text, a code
// (not sent by Nex 0.2.7) and the empty string as data.
type Envelope struct {
	Type  string          `json:"type"`
	Data  json.RawMessage `json:"data,omitempty"`
	Error string          `json:"error,omitempty"`
	Code  Code            `json:"code,omitempty"`
}

// NATSAccess says where and as whom to connect to NATS on a workload's behalf.
type NATSAccess struct {
	URL  string `json:"nats_url"`
	JWT  string `json:"nats_user_jwt"`
	Seed Secret `json:"nats_user_seed"`
}

// Validate reports what is wrong with the access. Its errors hold nothing
// secret.
func (a NATSAccess) Validate() error {
	for server := range strings.SplitSeq(a.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(server))
		if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return errors.New("nats_url must name NATS servers, as in nats://host:4222")
		}
	}
	if (a.JWT == "") != (a.Seed == "") {
		return errors.New("nats_user_jwt and nats_user_seed come together")
	}
	if a.Seed == "" {
		return nil
	}
	if prefix, _, err := nkeys.DecodeSeed([]byte(a.Seed)); err != nil || prefix != nkeys.PrefixByteUser {
		return errors.New("nats_user_seed must be the seed of a NATS user")
	}
	return nil
}

// DeployRequest asks a node to run a workload. [Keys.Deploy] makes one.
type DeployRequest struct {
	Type            WorkloadType `json:"type"`
	Location        Location     `json:"location"`
	Description     string       `json:"description"`
	Argv            []string     `json:"argv,omitempty"`
	Essential       bool         `json:"essential"`
	WorkloadJWT     string       `json:"workload_jwt"`
	Environment     string       `json:"environment"` // sealed, see SealEnvironment
	SenderPublicKey string       `json:"sender_public_key"`
	JSDomain        string       `json:"jsdomain"`
	TargetNode      string       `json:"target_node"`
	TriggerSubjects []string     `json:"trigger_subjects,omitempty"`

	TriggerConnection *NATSAccess `json:"trigger_connection,omitempty"`
	HostServices      *NATSAccess `json:"host_services,omitempty"`
	RetryCount        *uint       `json:"retry_count,omitempty"`
	RetriedAt         *time.Time  `json:"retried_at,omitempty"`

	Settings

	// SourceName is the artifact's file name as error texts show it, as in
	// echo.js. Unknown to Nex 0.2.7.
	SourceName string `json:"source_name,omitempty"`
}

// DeployReply tells that a workload runs.
type DeployReply struct {
	Started bool   `json:"started"`
	ID      string `json:"id"`
	Issuer  string `json:"issuer"`
	Name    string `json:"name"`
}

// StopRequest asks a node to end a workload. [Keys.Stop] makes one.
type StopRequest struct {
	WorkloadID  string `json:"workload_id"`
	WorkloadJWT string `json:"workload_jwt"`
	TargetNode  string `json:"target_node"`
}

// StopReply tells that a workload is gone.
type StopReply struct {
	Stopped bool   `json:"stopped"`
	ID      string `json:"id"`
	Issuer  string `json:"issuer"`
	Name    string `json:"name"`
}

// LameDuckRequest puts a node into lame duck mode. [Keys.LameDuck] and
// [Keys.Drain] make signed ones. Nex 0.2.7 sends and reads none.
type LameDuckRequest struct {
	AdminJWT string `json:"admin_jwt,omitempty"` // for nodes with administrators
	// Drain also ends what runs: functions when their calls have ended, then
	// services. Without it they go on.
	Drain bool `json:"drain,omitempty"`
}

// LameDuckReply tells that a node takes no new work.
type LameDuckReply struct {
	NodeID  string `json:"node_id"`
	Success bool   `json:"success"`
	// Drain is how far the node is that drains, else nil: also when it was asked
	// to and is of a version that cannot.
	Drain *DrainProgress `json:"drain,omitempty"`
}

// NodeInfo is what a node answers to a ping.
type NodeInfo struct {
	NodeID          string            `json:"node_id"`
	Nexus           string            `json:"nexus,omitempty"`
	Version         string            `json:"version"`
	Uptime          string            `json:"uptime"`
	TargetXkey      string            `json:"target_xkey"`
	Tags            map[string]string `json:"tags,omitempty"`
	RunningMachines int               `json:"running_machines"`
	// Drain is how far a node is that ends its workloads, else nil. Unknown to
	// Nex 0.2.7.
	Drain *DrainProgress `json:"drain,omitempty"`
}

// NodeWorkloads is what a node answers to a workload ping.
type NodeWorkloads struct {
	NodeID          string            `json:"node_id"`
	TargetXkey      string            `json:"target_xkey"`
	Version         string            `json:"version"`
	Tags            map[string]string `json:"tags,omitempty"`
	Uptime          string            `json:"uptime"`
	RunningMachines []WorkloadName    `json:"running_machines"`
}

// WorkloadName identifies one workload in [NodeWorkloads].
type WorkloadName struct {
	ID        string       `json:"id"`
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Type      WorkloadType `json:"type"`
}

// InfoReply tells about a node and the workloads of one namespace on it.
type InfoReply struct {
	Version                string            `json:"version"`
	Uptime                 string            `json:"uptime"`
	PublicXkey             string            `json:"public_xkey"`
	Tags                   map[string]string `json:"tags,omitempty"`
	Memory                 Memory            `json:"memory"`
	Machines               []MachineSummary  `json:"machines"`
	SupportedWorkloadTypes []WorkloadType    `json:"supported_workload_types,omitempty"`

	// AutostartIssuer is the public key that signs for the workloads in the node's
	// configuration, "" if there are none; Waiting are those of the namespace that
	// have not started yet. Unknown to Nex 0.2.7.
	AutostartIssuer string            `json:"autostart_issuer,omitempty"`
	Waiting         []WaitingWorkload `json:"waiting,omitempty"`
}

// WaitingWorkload is a workload in [InfoReply] that is to start with its node
// and has not yet.
type WaitingWorkload struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Type      WorkloadType `json:"type"`
	Attempts  int          `json:"attempts"`         // that failed
	Reason    string       `json:"reason,omitempty"` // of the last
}

// Memory is the host's memory in kB, as in /proc/meminfo.
type Memory struct {
	Total     int `json:"total"`
	Free      int `json:"free"`
	Available int `json:"available"`
}

// MachineSummary is one workload in [InfoReply]; its id is the workload's.
type MachineSummary struct {
	ID        string          `json:"id"`
	Healthy   bool            `json:"healthy"`
	Uptime    string          `json:"uptime"`
	Namespace string          `json:"namespace,omitempty"`
	Workload  WorkloadSummary `json:"workload"`

	// What follows is unknown to Nex 0.2.7.

	// Unhealthy says why it is not healthy.
	Unhealthy string `json:"unhealthy,omitempty"`
	// Restarts is how often the workload was started again.
	Restarts int `json:"restarts,omitempty"`
	// LastExit is how it ended before that, nil if it never did.
	LastExit *LastExit `json:"last_exit,omitempty"`
	// Usage is what a service uses, nil where that is not known.
	Usage *Usage `json:"usage,omitempty"`
}

// LastExit tells how a workload ended that was started again.
type LastExit struct {
	// Code is the exit status, -1 for a signal, 0 too for a machine that was lost.
	Code int `json:"code"`
	// Reason says it in words.
	Reason string `json:"reason"`
	// Cause is the limit that it met, as in [WorkloadLimitHit], or "".
	Cause string    `json:"cause,omitempty"`
	At    time.Time `json:"at"`
}

// Usage is what all processes of a service use; on nodes without cgroups, its
// agent too.
type Usage struct {
	// CPUMS is the processor time since it last started, in milliseconds.
	CPUMS int64 `json:"cpu_ms"`
	// MemoryBytes is what is in memory now.
	MemoryBytes int64 `json:"memory_bytes"`
	// PIDs is how many processes and threads there are.
	PIDs int `json:"pids"`
}

// WorkloadSummary describes a workload in [MachineSummary]. Hash is the
// lowercase hex SHA-256 of the artifact. Runtime is the uptime of a service
// and the time a function has spent executing.
type WorkloadSummary struct {
	Name        string       `json:"name"`
	Description string       `json:"description,omitempty"`
	Runtime     string       `json:"runtime"`
	Type        WorkloadType `json:"type"`
	Hash        string       `json:"hash"`
	// HostCallsRefused is how many calls of host services the node's policy or a
	// limit refused. Unknown to Nex 0.2.7.
	HostCallsRefused int64 `json:"host_calls_refused,omitempty"`
}

// Location says where an artifact is: nats://BUCKET/key in an Object Store.
// On the wire it is an object with the fields of Go's [url.URL]; a plain
// string is understood too.
type Location struct{ url.URL }

// ParseLocation parses nats://BUCKET/key.
func ParseLocation(s string) (Location, error) {
	l, err := parseURL(s)
	if err != nil {
		return Location{}, Errorf(Invalid, "artifact location %.64q: %v", s, err)
	}
	if l.Scheme != "nats" || l.Bucket() == "" || l.Key() == "" {
		return Location{}, Errorf(Invalid, "artifact location %.64q: want nats://BUCKET/key", s)
	}
	return l, nil
}

func parseURL(s string) (Location, error) {
	u, err := url.Parse(s)
	if err != nil {
		var e *url.Error
		if errors.As(err, &e) {
			err = e.Err // without the URL, which may be long
		}
		return Location{}, err
	}
	l := Location{*u}
	return l, l.check()
}

// check refuses what does not fit into the subjects of an Object Store.
func (l Location) check() error {
	if len(l.Host) > maxToken || len(l.Path) > maxSubject {
		return fmt.Errorf("the bucket has at most %d bytes and the key %d", maxToken, maxSubject)
	}
	if !utf8.ValidString(l.Host) || !utf8.ValidString(l.Path) { // which JSON cannot carry
		return errors.New("bucket and key must be UTF-8")
	}
	return nil
}

// Bucket is the name of the Object Store bucket.
func (l Location) Bucket() string { return l.Host }

// Key is the name of the object in the bucket.
func (l Location) Key() string { return strings.Trim(l.Path, "/") }

// MarshalJSON writes the object form, the only one Nex 0.2.7 reads.
func (l Location) MarshalJSON() ([]byte, error) { return json.Marshal(l.URL) }

// UnmarshalJSON reads the object form or a string.
func (l *Location) UnmarshalJSON(data []byte) error {
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte{'"'}) {
		if err := json.Unmarshal(data, &l.URL); err != nil {
			return err
		}
		return l.check()
	}
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	var err error
	*l, err = parseURL(s)
	return err
}
