// Package preflight says whether a host is ready to run a node: what is there,
// what is missing, why it is needed and what to do. Where it is allowed to, it
// installs what is missing.
//
// [Run] and [ForStart] change nothing: what they write to try something is
// removed before they return. [Installer.Install] changes what it
// says, and writes down the digest of every file that they put anywhere.
// A Host is a plain value, and everything may be used concurrently; of two
// installations into one state directory the second is refused.
package preflight

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/config"
	"nex/internal/machine/firecracker"
	"nex/internal/machine/qemu"
)

// Host is the host as one node would use it.
type Host struct {
	Settings config.Config
	StateDir string // of the node
	Program  string // path of this nex
	Version  string // of this nex

	Server   string        // NATS URL that the node would connect to; "" for the server in Settings
	Options  []nats.Option // who to connect as
	JSDomain string        // JetStream domain of artifacts, "" for the server's own
}

// Result says what came of a check.
type Result string

// The results of checks.
const (
	OK        Result = "ok"
	Missing   Result = "missing"    // a node needs it, and it is not there or not as it must be
	Warning   Result = "warning"    // a node runs, and not as well as it could
	NotNeeded Result = "not needed" // by a node with these settings
)

// Finding is what a check found.
type Finding struct {
	Group    string   `json:"group"`
	Name     string   `json:"name"`
	Why      string   `json:"why"` // who needs it
	Result   Result   `json:"result"`
	Found    string   `json:"found,omitempty"`    // path, or version, or whatever it is
	Detail   string   `json:"detail,omitempty"`   // what more there is to say of it
	Fix      string   `json:"fix,omitempty"`      // what to do
	Path     string   `json:"path,omitempty"`     // of the file or directory that it is about
	Searched []string `json:"searched,omitempty"` // directories

	item item // what could be installed; "" for nothing
}

// check is one thing that is looked at. Of what it returns the group, name and
// why are set by the caller.
type check struct {
	group, name, why string
	item             item
	start            bool // a node does not start without it
	needed           bool
	test             func(*probe, context.Context) Finding
}

// probe is a host while it is looked at.
type probe struct {
	*Host
	kvm error       // nil if it can be used
	vmm nex.Sandbox // kind of machines, never [nex.SandboxMicroVM]

	nc      *nats.Conn // nil until it is needed
	natsErr error
}

func (h *Host) probe(ctx context.Context) *probe {
	p := &probe{Host: h, kvm: errNotTried, vmm: h.Settings.Sandbox}
	if p.vmm == nex.SandboxNone || p.vmm == nex.SandboxOS {
		return p
	}
	p.kvm = kvmUsable()
	if p.vmm == nex.SandboxMicroVM {
		p.vmm = p.first(ctx)
	}
	return p
}

// first is the VMM that a node takes where either will do: Firecracker where it
// works, else QEMU. Where there is neither it is the one that could be.
func (p *probe) first(ctx context.Context) nex.Sandbox {
	if p.kvm != nil {
		return nex.SandboxQEMU
	}
	dirs := p.programDirs()
	program, version, err := firecracker.Find(ctx, dirs)
	if err == nil && p.jailed() {
		_, err = firecracker.FindJailer(ctx, program, version, dirs)
	}
	if err != nil {
		if _, _, none := qemu.Find(ctx, dirs); none == nil {
			return nex.SandboxQEMU
		}
	}
	return nex.SandboxFirecracker
}

// jailed reports whether a Firecracker of this node runs in a jail.
func (p *probe) jailed() bool { return os.Geteuid() == 0 && !p.Settings.Jailer.Off }

// withoutPlugins reports whether the node does without the network that CNI plugins
// make where they do not.
func (p *probe) withoutPlugins() bool {
	return p.vmm == nex.SandboxQEMU && p.Settings.QEMU.Network == "auto"
}

// Run makes all checks, in the order in which they are best read. The error is
// that of ctx.
func Run(ctx context.Context, h *Host) ([]Finding, error) {
	p := h.probe(ctx)
	defer p.hangUp()
	var found []Finding
	for _, c := range p.checks() {
		found = append(found, c.run(ctx, p))
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return found, nil
}

func (c check) run(ctx context.Context, p *probe) Finding {
	f := Finding{Result: NotNeeded}
	if c.needed {
		f = c.test(p, ctx)
	}
	f.Group, f.Name, f.Why, f.item = c.group, c.name, c.why, c.item
	return f
}

// Ready reports whether nothing that is needed is missing.
func Ready(found []Finding) bool {
	for _, f := range found {
		if f.Result == Missing {
			return false
		}
	}
	return true
}

// errNotTried stands for KVM where it does not matter.
var errNotTried = errors.New("not tried")

// ForStart makes those checks without which a node does not start, and no
// other: none of them asks the network. What is missing is the error, and
// doubtful what a node starts with all the same.
func ForStart(ctx context.Context, h *Host) (doubtful []Finding, err error) {
	p := h.probe(ctx)
	var missing []string
	for _, c := range p.checks() {
		if !c.start || !c.needed {
			continue
		}
		switch f := c.run(ctx, p); f.Result {
		case Missing:
			missing = append(missing, f.String())
		case Warning:
			doubtful = append(doubtful, f)
		}
	}
	if len(missing) == 0 {
		return doubtful, ctx.Err()
	}
	return doubtful, errors.New(strings.Join(missing, "\n"))
}

// String is the finding for people: one line, and where something is to be
// done others below it, indented.
func (f Finding) String() string {
	var b strings.Builder
	switch f.Result {
	case OK:
		b.WriteString("✅ Dependency Satisfied - " + f.Found + " [" + f.Name + "]")
	case Warning:
		b.WriteString("⚠️ Dependency Doubtful - " + f.Name)
	case Missing:
		b.WriteString("⛔ Dependency Missing - " + f.Name)
	default:
		b.WriteString("➖ Dependency Not Needed - " + f.Name)
	}
	if f.Result != Warning && f.Result != Missing {
		return b.String()
	}
	for _, line := range []struct{ label, text string }{{"what", f.Detail}, {"why", f.Why}, {"fix", f.Fix}} {
		if line.text != "" {
			b.WriteString("\n   " + line.label + ": " + line.text)
		}
	}
	return b.String()
}

// at is the finding with the path of what it is about.
func (f Finding) at(path string) Finding {
	f.Path = path
	return f
}

// found is a finding of what is there.
func found(what, detail string) Finding { return Finding{Result: OK, Found: what, Detail: detail} }

// missing is a finding of what is not, or not right.
func missing(detail, fix string) Finding { return Finding{Result: Missing, Detail: detail, Fix: fix} }

// doubtful is a finding of what a node can do without.
func doubtful(detail, fix string) Finding { return Finding{Result: Warning, Detail: detail, Fix: fix} }
