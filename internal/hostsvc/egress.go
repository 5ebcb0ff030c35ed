package hostsvc

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"nex"
)

// egress says what addresses workloads may reach. It looks at the address that
// is being connected to, so that neither names that change their address nor
// redirects lead around it.
type egress struct {
	allow, deny hosts
}

// hosts is a list of addresses and names.
type hosts struct {
	nets  []netip.Prefix
	names []string
}

var hostPattern = regexp.MustCompile(`^(\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*)$`)

// parseHosts reads addresses, ranges of them, and names that may begin with *.
func parseHosts(list []string) (h hosts, err error) {
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			if p.Addr().Is4In6() {
				return hosts{}, fmt.Errorf("%.64q: write it as a range of IPv4 addresses", s)
			}
			h.nets = append(h.nets, p.Masked())
			continue
		}
		if a, err := netip.ParseAddr(s); err == nil {
			a = a.Unmap().WithZone("")
			h.nets = append(h.nets, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		name := hostName(s)
		if !hostPattern.MatchString(name) {
			return hosts{}, fmt.Errorf("%.64q: want an address, a range like 10.0.0.0/8, or a host like example.org or *.example.org (names in other scripts as in xn--bcher-kva.example)", s)
		}
		h.names = append(h.names, name)
	}
	return h, nil
}

// hostName returns the one form of a host's name.
func hostName(s string) string { return strings.TrimSuffix(strings.ToLower(s), ".") }

func (h hosts) hasName(name string) bool {
	if _, err := netip.ParseAddr(name); err == nil {
		return slices.Contains(h.names, "*")
	}
	return slices.ContainsFunc(h.names, func(pattern string) bool {
		below, all := strings.CutPrefix(pattern, "*")
		return pattern == name || all && strings.HasSuffix(name, below)
	})
}

func (h hosts) hasAddress(addresses []netip.Addr) bool {
	return slices.ContainsFunc(h.nets, func(p netip.Prefix) bool { return slices.ContainsFunc(addresses, p.Contains) })
}

// check refuses a host with an address that a workload must not reach. Its
// text does not tell the address of a name.
func (e egress) check(host string, address netip.Addr) error {
	all := meant(address)
	if e.deny.hasAddress(all) {
		return nex.Errorf(nex.Denied, "this node does not let workloads reach %.100q", host)
	}
	if e.allow.hasName(host) || e.allow.hasAddress(all) {
		return nil
	}
	for _, a := range all {
		if why := special(a); why != "" {
			return nex.Errorf(nex.Denied, "this node does not let workloads reach %.100q: that is %s address", host, why)
		}
	}
	return nil
}

// dial connects to a host that workloads may reach.
func (e egress) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	host = hostName(host)
	if e.deny.hasName(host) { // before anybody is asked for its address
		return nil, nex.Errorf(nex.Denied, "this node does not let workloads reach %.100q", host)
	}
	dialer := net.Dialer{KeepAlive: 30 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("address of %.100q: %w", host, err)
		}
		return e.check(host, a.Addr())
	}}
	return dialer.DialContext(ctx, network, address)
}

// transport returns what a session makes its HTTP calls with. Connections are
// kept for its later calls and for nobody else's: some servers remember on a
// connection who was on it.
func (e egress) transport() *http.Transport {
	return &http.Transport{
		DialContext:            e.dial,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
		ExpectContinueTimeout:  time.Second,
		MaxIdleConns:           32,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		ForceAttemptHTTP2:      true,
	}
}
