package vmnet

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
)

// forwardFile says whether the host forwards packets of IPv4.
const forwardFile = "/proc/sys/net/ipv4/ip_forward"

func forwarding() (bool, error) {
	data, err := os.ReadFile(forwardFile)
	return strings.TrimSpace(string(data)) == "1", err
}

func setForwarding(on bool) error {
	value := "0"
	if on {
		value = "1"
	}
	return os.WriteFile(forwardFile, []byte(value), 0o644)
}

// checkForwarding tells of rules that open what is beyond this host while it does not
// forward. Of those that nobody asked for it only warns.
func (c Config) checkForwarding(opened []opening) error {
	forward, err := forwarding()
	if err != nil || forward {
		return err
	}
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("addresses of this host: %w", err)
	}
	own := map[netip.Addr]bool{c.gateway(): true}
	for _, a := range addresses {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			own[ip.Unmap()] = true
		}
	}
	for _, o := range opened {
		if o.net.Bits() == 32 && own[o.net.Addr()] {
			continue
		}
		const advice = "this host does not forward packets: set net.ipv4.ip_forward=1 (sysctl -w, and a file in /etc/sysctl.d)"
		if c.Egress != nil {
			return fmt.Errorf("egress %q: %s is beyond this host, and %s", o.rule, o.net, advice)
		}
		c.Log.Warn("Machines do not reach something that they may", "egress", o.rule, "address", o.net, "reason", advice)
		break
	}
	return nil
}
