package vmnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// resolvConf lists the host's name servers.
const resolvConf = "/etc/resolv.conf"

// Rule is one thing that guests may reach, as it was written.
type Rule struct {
	text string
	kind ruleKind
	net  netip.Prefix // of a range
	name string       // of a named host
	from uint16       // ports, both included
	to   uint16
	udp  bool
}

type ruleKind int

const (
	natsRule ruleKind = iota
	dnsRule
	rangeRule
	nameRule
)

func (r Rule) String() string { return r.text }

// hostPattern is what a host may be called. A name that ends with a number would be
// an address to some.
var hostPattern = regexp.MustCompile(`^([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z_]([a-z0-9_-]{0,61}[a-z0-9_])?$`)

// ParseRule reads one rule: "nats" for NATS as workloads reach it, "dns" for the
// name servers, or HOST:PORTS with an address, a range of addresses or a name, and
// a port or a range of ports, as in "10.0.0.0/8:5432", "db.example.com:5432-5433"
// or "192.0.2.1:123/udp". Guests have IPv4 only.
func ParseRule(s string) (Rule, error) {
	switch s {
	case "nats":
		return Rule{text: s, kind: natsRule}, nil
	case "dns":
		return Rule{text: s, kind: dnsRule}, nil
	}
	wrong := func(why string) (Rule, error) {
		return Rule{}, fmt.Errorf(`%.80q: %s; want "nats", "dns" or HOST:PORT, as in "10.0.0.0/8:5432", "db.example.com:5432" or "192.0.2.1:123/udp"`, s, why)
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return wrong("there is no port")
	}
	r := Rule{text: s}
	host, ports := s[:i], s[i+1:]
	ports, r.udp = strings.CutSuffix(ports, "/udp")
	if !r.udp {
		ports = strings.TrimSuffix(ports, "/tcp")
	}
	first, last, several := strings.Cut(ports, "-")
	if !several {
		last = first
	}
	from, ok1 := parsePort(first)
	to, ok2 := parsePort(last)
	if !ok1 || !ok2 || from > to {
		return wrong("a port is a number from 1 to 65535, or two of them with - between")
	}
	r.from, r.to = from, to
	if strings.ContainsAny(host, "[]:") {
		return wrong("guests have IPv4 only")
	}
	if a, err := netip.ParseAddr(host); err == nil {
		host = netip.PrefixFrom(a, a.BitLen()).String()
	}
	if p, err := netip.ParsePrefix(host); err == nil {
		if p != p.Masked() {
			return wrong(fmt.Sprintf("the range is written %s", p.Masked()))
		}
		if p.Bits() > 0 {
			if err := reachable(p.Addr()); err != nil {
				return wrong(err.Error())
			}
		}
		r.kind, r.net = rangeRule, p
		return r, nil
	}
	if len(host) > 253 || !hostPattern.MatchString(host) {
		return wrong("this is neither an address, nor a range of them, nor the name of a host in lower case")
	}
	r.kind, r.name = nameRule, host
	return r, nil
}

// CheckNATS tells what is wrong with an address of NATS.
func CheckNATS(address string) error {
	r, err := ParseRule(address)
	if err == nil && (r.kind == natsRule || r.kind == dnsRule || r.kind == rangeRule && r.net.Bits() != 32 || r.from != r.to || r.udp) {
		err = fmt.Errorf("%.80q: NATS is at one address or name, and one port of TCP", address)
	}
	return err
}

func parsePort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n > 0 && s[0] != '0' && s[0] != '+'
}

// never are addresses that no rule opens.
var never = []struct {
	net netip.Prefix
	why string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "is no host's address"},
	{netip.MustParsePrefix("127.0.0.0/8"), "is the guest itself, to a guest"},
	{metadata, "is where hosts keep metadata, which no guest may reach"},
	{netip.MustParsePrefix("224.0.0.0/3"), "is no host's address"},
}

// metadata are the link-local addresses, at which clouds tell machines who they are.
var metadata = netip.MustParsePrefix("169.254.0.0/16")

// alone are addresses at which some clouds have metadata beside other things, as name servers: a rule has to
// name them, and ranges do not open them. They are Azure's
// and Alibaba's.
var alone = []netip.Prefix{netip.MustParsePrefix("168.63.129.16/32"), netip.MustParsePrefix("100.100.100.200/32")}

// reachable tells why no guest may reach an address, whatever the rules say.
func reachable(a netip.Addr) error {
	if !a.Is4() {
		return errors.New("guests have IPv4 only")
	}
	for _, n := range never {
		if n.net.Contains(a) {
			return fmt.Errorf("%s %s", a, n.why)
		}
	}
	return nil
}

// hostNameservers returns the host's name servers that guests can reach.
func hostNameservers(path string) []netip.Addr {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var found []netip.Addr
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil && reachable(a) == nil && len(found) < 3 {
			found = append(found, a)
		}
	}
	return found
}

// opening is a rule with its names resolved: addresses and ports that guests reach.
type opening struct {
	net      netip.Prefix
	from, to uint16
	udp      bool
	rule     string // what it comes of
}

func (o opening) String() string {
	protocol := "tcp"
	if o.udp {
		protocol = "udp"
	}
	return fmt.Sprintf("%s %d-%d %s", o.net, o.from, o.to, protocol)
}

// openings reads and resolves the rules.
func (c Config) openings(ctx context.Context) ([]opening, error) {
	list := c.Egress
	if list == nil {
		list = []string{"nats", "dns"}
	}
	var all []opening
	for _, s := range list {
		r, err := ParseRule(s)
		if err != nil {
			return nil, fmt.Errorf("egress: %w", err)
		}
		opened, err := r.open(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("egress %q: %w", s, err)
		}
		all = append(all, opened...)
	}
	return all, nil
}

// open resolves one rule.
func (r Rule) open(ctx context.Context, c Config) ([]opening, error) {
	switch r.kind {
	case dnsRule:
		var all []opening
		for _, a := range c.Nameservers {
			for _, udp := range []bool{true, false} {
				all = append(all, opening{netip.PrefixFrom(a, 32), 53, 53, udp, r.text})
			}
		}
		return all, nil
	case rangeRule:
		return []opening{{r.net, r.from, r.to, r.udp, r.text}}, nil
	case natsRule:
		host, port, err := net.SplitHostPort(c.NATS)
		if err != nil {
			return nil, err
		}
		n, ok := parsePort(port)
		if !ok {
			return nil, fmt.Errorf("%q has no port", c.NATS)
		}
		r.name, r.from, r.to = host, n, n
	}
	var addresses []netip.Addr
	if a, err := netip.ParseAddr(r.name); err == nil {
		addresses = []netip.Addr{a}
	} else if addresses, err = net.DefaultResolver.LookupNetIP(ctx, "ip4", r.name); err != nil {
		return nil, fmt.Errorf("find the address: %w", err)
	}
	var all []opening
	for _, a := range addresses {
		a = a.Unmap()
		if err := reachable(a); err != nil {
			return nil, err
		}
		all = append(all, opening{netip.PrefixFrom(a, 32), r.from, r.to, r.udp, r.text})
	}
	return all, nil
}
