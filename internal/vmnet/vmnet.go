// Package vmnet is the network of microVMs: one network card each, that reaches
// what the node's egress rules allow and nothing else.
//
// [New] opens the network of a node. A network is made by plugins of the Container
// Network Interface (CNI) in a network namespace for each machine, and held in by
// nftables on the host's side of it, where the guest has no say. What is made
// is recorded first, so that [Sweep] can undo it for a node that was killed; nothing else on the host
// is touched. All of that is Linux only.
//
// [UserNet] is the network that QEMU makes itself, without root, under the same
// rules; it works wherever QEMU does.
package vmnet

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
)

// Config says what network a node's machines get.
type Config struct {
	// Node tells the nodes of a host apart, as the first characters of a node's
	// id: letters, digits and "-".
	Node string
	// StateDir is the node's directory; leases and what else plugins keep is in its
	// directory cni.
	StateDir string
	// Program is the path of nex, which holds the tap plugin.
	Program string
	// BinPath are the directories of the CNI plugins; nil for those of PATH,
	// /opt/cni/bin and /usr/lib/cni.
	BinPath []string
	// ConfDir is where operators configure networks; "" is /etc/cni/conf.d.
	ConfDir string
	// NetworkName is the name of the network: NAME.conflist in ConfDir is taken if it
	// exists. "" is fcnet.
	NetworkName string
	// InterfaceName is what the plugins' interface in the namespace is called. "" is
	// veth0.
	InterfaceName string
	// Subnet is the network of all machines; zero is 192.168.127.0/24. Its first
	// address is the host's.
	Subnet netip.Prefix
	// Nameservers are the name servers that guests are told; nil for those of the
	// host which guests can reach.
	Nameservers []netip.Addr
	// NATS is the host:port of NATS as workloads reach it; "" is port 4222 of the
	// host's address in Subnet.
	NATS string
	// Egress says what guests may reach (see [ParseRule]); nil is nats and dns, and
	// an empty list nothing.
	Egress []string
	// TapUID and TapGID may open the tap besides root.
	TapUID, TapGID int
	// Log gets what is worth knowing and no error; nil for nobody.
	Log *slog.Logger
}

// Defaults of [Config].
const (
	DefaultNetwork   = "fcnet"
	DefaultInterface = "veth0"
	DefaultSubnet    = "192.168.127.0/24"
	NATSPort         = 4222
)

// NIC is the network card of one machine.
type NIC struct {
	NetNS       string           // path of the network namespace that the tap is in
	Tap         string           // name of the tap device in there
	MAC         net.HardwareAddr // of the guest
	IP, Gateway netip.Addr       // of the guest, and of the host as the guest sees it
	Mask        net.IPMask
	Nameservers []netip.Addr
}

// complete fills in what was not given.
func (c Config) complete() (Config, error) {
	if c.NetworkName == "" {
		c.NetworkName = DefaultNetwork
	}
	if c.InterfaceName == "" {
		c.InterfaceName = DefaultInterface
	}
	if !c.Subnet.IsValid() {
		c.Subnet = netip.MustParsePrefix(DefaultSubnet)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if err := CheckSubnet(c.Subnet); err != nil {
		return Config{}, err
	}
	if c.Subnet = c.Subnet.Masked(); c.Nameservers == nil {
		c.Nameservers = hostNameservers(resolvConf)
	}
	for _, a := range c.Nameservers {
		if err := CheckNameserver(a); err != nil {
			return Config{}, fmt.Errorf("name servers: %w", err)
		}
	}
	if c.NATS == "" {
		c.NATS = netip.AddrPortFrom(c.gateway(), NATSPort).String()
	}
	return c, nil
}

// CheckSubnet tells what is wrong with a network for machines.
func CheckSubnet(p netip.Prefix) error {
	switch {
	case !p.Addr().Is4():
		return fmt.Errorf("subnet %s is not of IPv4", p)
	case p.Bits() < 8 || p.Bits() > 29:
		return fmt.Errorf("subnet %s: from /8 to /29 will do", p)
	}
	return reachable(p.Masked().Addr())
}

// CheckNameserver tells why guests cannot have a name server.
func CheckNameserver(a netip.Addr) error { return reachable(a) }

// gateway returns the host's address in the subnet, its first.
func (c Config) gateway() netip.Addr { return c.Subnet.Addr().Next() }
