package preflight

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nex"
	"nex/internal/cgroup"
	"nex/internal/confine"
	"nex/internal/machine"
	"nex/internal/machine/microvm"
)

func kvmUsable() error { return microvm.KVM() }

func (p *probe) virtualization(context.Context) Finding {
	switch {
	case p.kvm == nil:
		return found("/dev/kvm", "").at("/dev/kvm")
	case p.vmm == nex.SandboxFirecracker:
		return missing(p.kvm.Error(), "use a host that has KVM (a user needs to be in the group kvm), or \"sandbox\": \"microvm\" or \"qemu\", which go without")
	case p.Settings.QEMU.Accel == "kvm":
		return missing(p.kvm.Error(), "use a host that has KVM (a user needs to be in the group kvm), or \"accel\": \"auto\" of \"qemu\", which goes without")
	}
	return doubtful(p.kvm.Error(), "QEMU emulates the processor, which is slow: use a host, or a kind of cloud machine, that has KVM; a user needs to be in the group kvm")
}

// jailShows returns why machines in a jail could not have a file of an image.
func (p *probe) jailShows(path string) error { return p.jail().CheckFile(path) }

func systemName() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "linux"
	}
	return "linux " + string(bytes.TrimRight(u.Release[:], "\x00"))
}

// capNetAdmin is CAP_NET_ADMIN, see capabilities(7).
const capNetAdmin = 12

// privileges looks for what the network of machines takes, as far as the sandbox has
// one.
func (p *probe) privileges(context.Context) Finding {
	root := os.Geteuid() == 0
	has, err := capability(capNetAdmin)
	able := has || err != nil // what is not known is tried
	network := p.Settings.QEMU.Network
	switch {
	case p.vmm == nex.SandboxQEMU && network == "tap" && !(root && able):
		return missing(`machines are to have taps ("qemu": {"network": "tap"}), for which a node has to be root and have CAP_NET_ADMIN`, `run the node as root (sudo), or choose "network": "user" or "auto"`)
	case p.vmm == nex.SandboxFirecracker && root && !able:
		return missing("this is root without CAP_NET_ADMIN", "run nex where root may make networks: not in a container without privileges")
	case p.vmm == nex.SandboxFirecracker && !root:
		return doubtful(fmt.Sprintf("this is user %d: Firecracker runs without its jailer, and machines have no network and may get no limits", os.Geteuid()), "run the node as root (sudo)")
	case p.vmm == nex.SandboxQEMU && !root:
		return doubtful(fmt.Sprintf("this is user %d: machines get QEMU's user network, and may get no limits", os.Geteuid()), "run the node as root (sudo)")
	case p.withoutPlugins() && !able:
		return doubtful("this is root without CAP_NET_ADMIN: machines get QEMU's user network", "run nex where root may make networks: not in a container without privileges")
	case root:
		return found("root", "")
	}
	return found(fmt.Sprintf("user %d", os.Geteuid()), "")
}

// capability reports whether this process has one in its effective set.
func capability(n uint) (bool, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(status)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			var set uint64
			if _, err := fmt.Sscanf(hex, "%x", &set); err != nil {
				return false, err
			}
			return set>>n&1 == 1, nil
		}
	}
	return false, errors.New("the kernel does not say what this process may do")
}

func (p *probe) cgroups(context.Context) Finding {
	kind, err := cgroup.Look()
	if err != nil {
		return doubtful(err.Error(), "run the node as root, or as a systemd unit with Delegate=yes; without, services that ask for cpus, memory_mib or pids are refused")
	}
	return found(string(kind), "")
}

func (p *probe) confine(ctx context.Context, agent, dir string) ([]string, error) {
	l := machine.Processes{
		Agent: agent, Dir: dir, Log: slog.New(slog.DiscardHandler),
		Confine: &confine.Config{Network: confine.Network(p.Settings.OSNetwork), BestEffort: p.Settings.BestEffort},
	}
	return l.Probe(ctx)
}

func (p *probe) nftables(context.Context) Finding {
	if err := nftablesGeneration(); err != nil {
		f := missing("the kernel does not answer about nftables: "+err.Error(), "load it (modprobe nf_tables), and run nex as root")
		if p.withoutPlugins() {
			f.Result, f.Detail = Warning, f.Detail+"; machines get QEMU's own network instead, which is slower"
		}
		return f
	}
	if list, err := readConflist(p.Settings.CNI.Conflist()); err != nil || !list.masquerades() {
		return found("the kernel's", "")
	}
	for _, name := range []string{"nft", "iptables"} {
		for _, dir := range []string{"", "/usr/sbin/", "/sbin/"} {
			if path, err := exec.LookPath(dir + name); err == nil {
				return found(path, "").at(path)
			}
		}
	}
	return missing("the CNI configuration has \"ipMasq\", for which ptp calls nft or iptables, and neither is here", "install one (on Debian: apt-get install nftables)")
}

// Messages of the kernel's nf_tables, see linux/netfilter/nf_tables.h.
const (
	nfnlSubsystem = 10
	nftNewGen     = 15
	nftGetGen     = 16
)

// nftablesGeneration asks the kernel for the generation of its rules, which
// changes nothing and is answered if there are nftables.
func nftablesGeneration() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }() // nothing is on its way
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		return err
	}
	ask := make([]byte, unix.SizeofNlMsghdr+4) // the last four: any family, version 0, no resource
	ne := binary.NativeEndian
	ne.PutUint32(ask, uint32(len(ask)))
	ne.PutUint16(ask[4:], nfnlSubsystem<<8|nftGetGen)
	ne.PutUint16(ask[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(fd, ask, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 {
		return errors.New("an answer that is cut off")
	}
	switch kind := ne.Uint16(answer[4:]); kind {
	case nfnlSubsystem<<8 | nftNewGen:
		return nil
	case unix.NLMSG_ERROR:
		return unix.Errno(-int32(ne.Uint32(answer[unix.SizeofNlMsghdr:])))
	default:
		return fmt.Errorf("an answer of kind %d", kind)
	}
}

func (p *probe) forwarding(context.Context) Finding {
	const path = "/proc/sys/net/ipv4/ip_forward"
	on, err := os.ReadFile(path)
	if err != nil {
		return doubtful(err.Error(), "mount /proc, and see whether the kernel has IPv4").at(path)
	}
	if strings.TrimSpace(string(on)) != "1" {
		return doubtful("it is off: machines reach this host and nothing beyond it, whatever \"egress\" allows", "sysctl -w net.ipv4.ip_forward=1, and a file in /etc/sysctl.d").at(path)
	}
	return found(path, "").at(path)
}

func freeBytes(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}

func fileLimit() (uint64, error) {
	var l unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l)
	return l.Max, err
}

// staUnsync is a bit of the clock's status: nobody keeps it right; see
// adjtimex(2).
const staUnsync = 0x40

func clockState() string {
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		return ""
	}
	if t.Status&staUnsync != 0 {
		return "nobody on this system says that it is kept right"
	}
	return "kept right to " + (time.Duration(t.Maxerror) * time.Microsecond).String()
}

func writable(dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("%s is not writable: %w", dir, err)
	}
	return nil
}
