// Package guestos is what an agent does for the operating system of a microVM.
// Where it is process 1 it makes a system of a bare kernel: it mounts, sets up the
// network, runs what the image wants run, buries orphans, and powers off when it
// ends, for whatever reason. As a service of an init system it leaves all that to
// the init.
//
// What to do is on the kernel command line, which the node wrote; see [Parse].
package guestos

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Marker is the word on the kernel command line that tells a guest of a node from
// any other machine.
const Marker = "nex.guest=1"

// maxDNS is how many servers a resolv.conf may name.
const maxDNS = 3

// Settings are what the kernel command line says.
type Settings struct {
	Guest   bool         // this machine is a guest of a node
	Network *Network     // nil for none
	DNS     []netip.Addr // servers, in order
	DNSTCP  bool         // they answer over TCP only
}

// Network is the one network of a guest.
type Network struct {
	Address  netip.Prefix // with the bits of the address as they are
	Gateway  netip.Addr   // the zero value for none
	Device   string       // such as eth0
	Hostname string       // "" for none
}

// Parse reads a kernel command line. Of its words these count, each at most once,
// and what they say must be exactly right:
//
//	nex.guest=1
//	ip=ADDRESS::[GATEWAY]:MASK:[HOSTNAME]:DEVICE:off    IPv4, as the kernel defines it
//	nex.dns=ADDRESS[,ADDRESS…]                          at most 3
//	nex.dns.tcp=1                                       they answer over TCP only
func Parse(line string) (Settings, error) {
	var s Settings
	seen := map[string]bool{}
	for word := range strings.FieldsSeq(line) {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "ip", "nex.dns", "nex.dns.tcp", "nex.guest":
			if seen[key] {
				return Settings{}, fmt.Errorf("kernel command line has %s= twice", key)
			}
			seen[key] = true
		}
		var err error
		switch key {
		case "nex.guest":
			s.Guest = word == Marker
		case "ip":
			s.Network, err = parseNetwork(value)
		case "nex.dns":
			s.DNS, err = parseDNS(value)
		case "nex.dns.tcp":
			if s.DNSTCP = value == "1"; !s.DNSTCP {
				err = errors.New("wants 1")
			}
		}
		if err != nil {
			return Settings{}, fmt.Errorf("kernel command line: %.200q: %w", word, err)
		}
	}
	return s, nil
}

func parseNetwork(value string) (*Network, error) {
	f := strings.Split(value, ":")
	if len(f) != 7 {
		return nil, fmt.Errorf("has %d fields, want 7", len(f))
	}
	address, server, gateway, mask, hostname, device, method := f[0], f[1], f[2], f[3], f[4], f[5], f[6]
	if server != "" {
		return nil, fmt.Errorf("names a server for the root file system")
	}
	if method != "off" && method != "none" {
		return nil, fmt.Errorf("wants %.20q, want off", method)
	}
	a, err := parseIPv4(address)
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	m, err := parseIPv4(mask)
	if err != nil {
		return nil, fmt.Errorf("mask: %w", err)
	}
	ones, bits := net.IPMask(m.AsSlice()).Size()
	if bits == 0 || ones == 0 {
		return nil, fmt.Errorf("mask %s is none", m)
	}
	n := &Network{Address: netip.PrefixFrom(a, ones), Device: device, Hostname: hostname}
	if gateway != "" {
		if n.Gateway, err = parseIPv4(gateway); err != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
		if !n.Address.Contains(n.Gateway) || n.Gateway == a {
			return nil, fmt.Errorf("gateway %s is not in %s", n.Gateway, n.Address.Masked())
		}
	}
	if !isName(device, 15, "-_.") { // one less than IFNAMSIZ
		return nil, fmt.Errorf("%.20q is no name of a device", device)
	}
	if hostname != "" && !isName(hostname, 63, "-.") {
		return nil, fmt.Errorf("%.70q is no host name", hostname)
	}
	return n, nil
}

func parseDNS(value string) (all []netip.Addr, err error) {
	for text := range strings.SplitSeq(value, ",") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return nil, fmt.Errorf("%.50q is no address of a server", text)
		}
		all = append(all, a)
	}
	if len(all) > maxDNS {
		return nil, fmt.Errorf("%d servers are more than %d", len(all), maxDNS)
	}
	return all, nil
}

func parseIPv4(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, err
	}
	if !a.Is4() || a.IsUnspecified() || a.IsMulticast() {
		return netip.Addr{}, fmt.Errorf("%s is not an IPv4 address of one machine", a)
	}
	return a, nil
}

// isName reports whether text is made of letters, digits and the others, which it
// does not begin with, and has between 1 and most bytes.
func isName(text string, most int, others string) bool {
	for i, r := range text {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune(others, r)) {
			return false
		}
	}
	return len(text) > 0 && len(text) <= most
}

// resolvConf is the file for the resolver; see resolv.conf(5).
func (s Settings) resolvConf() string {
	var b strings.Builder
	for _, server := range s.DNS {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}
	if s.DNSTCP {
		b.WriteString("options use-vc\n")
	}
	return b.String()
}

// Agent is what an agent has to know of the machine it is in.
type Agent struct {
	// Guest says that the machine is a guest of a node, which may be reached over
	// the devices of a virtual machine.
	Guest bool
	// First says that it is process 1 of a guest. It works in the current
	// directory, as with a node on the same host.
	First bool
}
