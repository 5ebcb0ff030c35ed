package nex

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Tags that nodes set themselves.
const (
	TagName     = "node_name"
	TagOS       = "nex.os"
	TagArch     = "nex.arch"
	TagCPUs     = "nex.cpucount"
	TagUnsafe   = "nex.unsafe"  // "true" without a sandbox
	TagSandbox  = "nex.sandbox" // a [Sandbox]; unknown to Nex 0.2.7
	TagVMM      = "nex.vmm"     // what runs microVMs, its version and how: as "QEMU 7.2.22 (tcg)"; unknown to Nex 0.2.7
	TagLimits   = "nex.limits"  // by what services are limited: cgroup2, cgroup1, rlimits or guest (the kernel of a microVM); unknown to Nex 0.2.7
	TagLameDuck = "nex.lameduck"
	// TagSandboxMissing says what the host does not have of the node's sandbox,
	// each part with its reason. It is not there if nothing is missing.
	TagSandboxMissing = "nex.sandbox.missing"
)

// AuctionRequest describes what a node must offer to bid. Empty fields ask for
// nothing. Nodes of Nex 0.2.7 know the first five.
type AuctionRequest struct {
	Arch          string            `json:"arch,omitempty"`
	OS            string            `json:"os,omitempty"`
	Sandboxed     *bool             `json:"sandboxed,omitempty"`
	Tags          map[string]string `json:"tags,omitempty"`
	WorkloadTypes []WorkloadType    `json:"workload_types,omitempty"`

	// Namespace is where the workload is to run.
	Namespace string `json:"namespace,omitempty"`
	// Issuer is the public nkey that is going to sign.
	Issuer string `json:"issuer,omitempty"`
	// Bytes is the size of the artifact.
	Bytes int64 `json:"bytes,omitempty"`
	// TriggerSubjects are those of the function.
	TriggerSubjects []string `json:"trigger_subjects,omitempty"`
	Settings

	// Explain makes nodes answer that do not bid, and say why.
	Explain bool `json:"explain,omitempty"`
}

// Bid is what a node answers to an auction: who it is, and if the request
// asked for it why it does not bid.
type Bid struct {
	NodeInfo
	// Room is how many more workloads the node takes, 0 for any number.
	// Unknown to Nex 0.2.7.
	Room int `json:"room,omitempty"`
	// Refusals are the reasons why the node would not take the workload, each
	// to be read after the node's name, as in "lacks tag gpu=true".
	Refusals []string `json:"refusals,omitempty"`
}

// Misses tells what a node's own description lacks of what is asked for, in
// the form of [Bid.Refusals]. Values of tags are compared in any case. Types
// of workloads, limits and policy are not in a description.
func (r AuctionRequest) Misses(n NodeInfo) (misses []string) {
	miss := func(format string, args ...any) { misses = append(misses, fmt.Sprintf(format, args...)) }
	if n.LameDuck() {
		miss("is in lame duck mode")
	}
	if os := n.Tags[TagOS]; r.OS != "" && !strings.EqualFold(r.OS, os) {
		miss("runs on %s, not %s", os, r.OS)
	}
	if arch := n.Tags[TagArch]; r.Arch != "" && !strings.EqualFold(r.Arch, arch) {
		miss("has architecture %s, not %s", arch, r.Arch)
	}
	for _, key := range slices.Sorted(maps.Keys(r.Tags)) {
		if got, ok := n.Tags[key]; !ok || !strings.EqualFold(got, r.Tags[key]) {
			miss("lacks tag %s=%s", key, r.Tags[key])
		}
	}
	have := n.Sandbox()
	if r.Sandboxed != nil && *r.Sandboxed != (have != SandboxNone) {
		miss("has sandbox %s", have)
	} else if !have.AtLeast(r.Settings.Sandbox) {
		miss("has sandbox %s, not %s", have, r.Settings.Sandbox)
	}
	return misses
}

// Name is the node's name, for people.
func (n NodeInfo) Name() string {
	if name := n.Tags[TagName]; name != "" {
		return name
	}
	return "no-name"
}

// LameDuck reports whether the node takes no new work.
func (n NodeInfo) LameDuck() bool {
	lame, err := strconv.ParseBool(n.Tags[TagLameDuck])
	return err == nil && lame
}

// Sandbox is what the node's workloads run in. Nodes of Nex 0.2.7 run them in
// Firecracker unless they say otherwise.
func (n NodeInfo) Sandbox() Sandbox {
	if s := n.Tags[TagSandbox]; s != "" {
		return Sandbox(s)
	}
	if n.Tags[TagUnsafe] == "true" {
		return SandboxNone
	}
	return SandboxFirecracker
}
