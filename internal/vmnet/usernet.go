package vmnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"nex/internal/vmnet/forward"
)

// User is the network card of one machine in the network that QEMU makes itself.
type User struct {
	// Netdev is the argument of QEMU's option -netdev, for the network with the id
	// that was asked for.
	Netdev string
	// MAC, IP, Gateway and Mask are the guest's. They are the same for all machines:
	// each is alone in its network.
	MAC         net.HardwareAddr
	IP, Gateway netip.Addr
	Mask        net.IPMask
	// Nameservers are name servers as the guest sees them. They answer over TCP
	// only: a guest's resolver needs "options use-vc".
	Nameservers []netip.Addr
}

// UserNet returns the network that QEMU makes itself, without root, under the rules
// of cfg. Of cfg it takes Program, Subnet, Nameservers, NATS and Egress. id is a
// name for QEMU.
//
// With "restrict=on" QEMU drops all that a guest sends but what is forwarded by
// name, one TCP address and port each ("guestfwd"), within the guest's subnet. So NATS
// is at port 4222 of the host's address in the subnet, where cfg.NATS does not say another, and a name
// server at port 53 there. Rules that cannot be kept so are refused: ranges of
// addresses or many ports, UDP, and addresses outside of the subnet.
func UserNet(ctx context.Context, cfg Config, id string) (*User, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("user network: %w", err)
	}
	if cfg.Program == "" {
		return nil, errors.New("user network: no program to forward with")
	}
	gateway := cfg.gateway()
	u := &User{
		IP: gateway.Next(), Gateway: gateway,
		Mask: net.CIDRMask(cfg.Subnet.Bits(), 32),
	}
	address := u.IP.As4()
	u.MAC = append(net.HardwareAddr{0x06, 0}, address[:]...)
	forwards, err := cfg.forwards(ctx)
	if err != nil {
		return nil, err
	}
	last := lastOf(cfg.Subnet)
	parts := []string{
		"user", "id=" + id, "restrict=on", "ipv6=off",
		"net=" + cfg.Subnet.String(),
		// QEMU forwards nothing at its own two addresses: they are the last ones.
		"host=" + last.Prev().String(), "dns=" + last.Prev().Prev().String(),
	}
	for _, f := range forwards {
		if f.guest.Port() == 53 && len(u.Nameservers) == 0 {
			u.Nameservers = []netip.Addr{f.guest.Addr()}
		}
		command := quote(cfg.Program) + " " + forward.Command + " " + f.target
		parts = append(parts, fmt.Sprintf("guestfwd=tcp:%s:%d-cmd:%s", f.guest.Addr(), f.guest.Port(), command))
	}
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(p, ",", ",,")
	}
	u.Netdev = strings.Join(parts, ",")
	return u, nil
}

// forwarded is one address that a guest sees and what is behind it.
type forwarded struct {
	guest  netip.AddrPort
	target string // host:port
}

// maxForwards bounds how many ports are forwarded one by one.
const maxForwards = 64

// forwards turns rules into forwards, or tells which cannot be.
func (c Config) forwards(ctx context.Context) ([]forwarded, error) {
	list := c.Egress
	if list == nil {
		list = []string{"nats", "dns"}
	}
	gateway := c.gateway()
	var all []forwarded
	for _, s := range list {
		r, err := ParseRule(s)
		if err != nil {
			return nil, fmt.Errorf("egress: %w", err)
		}
		opened, err := r.open(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("egress %q: %w", s, err)
		}
		cannot := func(why string) error {
			return fmt.Errorf("egress %q: QEMU's user network cannot keep that: %s; use a tap (root), or leave it out", s, why)
		}
		switch {
		case len(opened) == 0: // no name server is known
			continue
		case r.kind == dnsRule:
			all = append(all, forwarded{netip.AddrPortFrom(gateway, 53), c.target(netip.AddrPortFrom(opened[0].net.Addr(), 53))})
			continue
		case r.kind == natsRule:
			at := netip.AddrPortFrom(opened[0].net.Addr(), opened[0].from)
			all = append(all, forwarded{netip.AddrPortFrom(gateway, NATSPort), c.target(at)})
			continue
		}
		for _, o := range opened {
			switch {
			case o.net.Bits() < 32:
				return nil, cannot("it forwards single addresses")
			case o.udp:
				return nil, cannot("it forwards TCP only")
			case o.net.Addr() != gateway:
				return nil, cannot(fmt.Sprintf("it forwards only the address %s, of this host", gateway))
			case len(all)+int(o.to-o.from) >= maxForwards:
				return nil, cannot(fmt.Sprintf("it forwards ports one by one, at most %d", maxForwards))
			}
			for port := int(o.from); port <= int(o.to); port++ {
				at := netip.AddrPortFrom(gateway, uint16(port))
				all = append(all, forwarded{at, c.target(at)})
			}
		}
	}
	seen := map[netip.AddrPort]string{}
	for i := 0; i < len(all); i++ {
		f := all[i]
		if target, ok := seen[f.guest]; ok && target != f.target {
			return nil, fmt.Errorf("egress: %s is to be both %s and %s in QEMU's user network", f.guest, target, f.target)
		} else if ok {
			all = append(all[:i], all[i+1:]...)
			i--
		}
		seen[f.guest] = f.target
	}
	return all, nil
}

// target returns where the host connects for what a guest sees. The host's address
// in the subnet is not on any interface: it stands for the host itself.
func (c Config) target(at netip.AddrPort) string {
	if at.Addr() == c.gateway() {
		at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	return at.String()
}

// lastOf returns the last address of a network, that of its broadcasts.
func lastOf(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}

// quote makes one word of s for a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
