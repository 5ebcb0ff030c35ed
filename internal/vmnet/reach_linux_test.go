package vmnet

import (
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestOtherGuests are not reached, nor are their addresses taken.
func TestOtherGuests(t *testing.T) {
	forwardAll(t) // so that only the firewall is between them
	n := newNetwork(t, func(c *Config) { c.Egress = []string{"nats", "dns", "192.168.0.0/16:1-65535"} })
	var guests []*booted
	var cards []*NIC
	for _, id := range []string{"one", "two"} {
		nic, _ := attach(t, n, id)
		g := boot(t, nic)
		if err := n.Enable(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		g.serve(t, ":7000")
		guests, cards = append(guests, g), append(cards, nic)
	}
	serve(t, ":4222")
	for i, g := range guests { // to each other not as neighbours, but through the host
		if err := Within(g.path, func() error { return routeVia(cards[1-i].IP, "192.168.127.1") }); err != nil {
			t.Fatal(err)
		}
	}
	for i, g := range guests {
		if err := g.dial("tcp", "192.168.127.1:4222", patience); err != nil {
			t.Error(err)
		}
		other := cards[1-i].IP
		if err := g.dial("tcp", netip.AddrPortFrom(other, 7000).String(), briefly); err == nil {
			t.Errorf("%s reaches %s", cards[i].IP, other)
		}
		if err := greet("tcp", netip.AddrPortFrom(other, 7000).String(), patience); err != nil { // it is there
			t.Error(err)
		}
	}
}

// TestSpoofed has a guest send from addresses that are not its own.
func TestSpoofed(t *testing.T) {
	n := newNetwork(t, nil)
	nic, _ := attach(t, n, "one")
	g := boot(t, nic)
	if err := n.Enable(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenPacket("udp4", ":53")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	send := func(from string) error {
		return Within(g.path, func() error {
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
			conn, err := d.Dial("udp4", "192.168.127.1:53")
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write([]byte(from))
			return err
		})
	}
	false4 := []string{"192.168.127.77", "10.9.8.7", "192.168.127.254"}
	for _, from := range false4 {
		err := Within(g.path, func() error {
			eth0, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(from), Mask: net.CIDRMask(32, 32)}})
		})
		if err := errors.Join(err, send(from)); err != nil {
			t.Fatal(err)
		}
	}
	if err := send(nic.IP.String()); err != nil {
		t.Fatal(err)
	}
	p.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 100)
	k, from, err := p.ReadFrom(b)
	if err != nil || string(b[:k]) != nic.IP.String() {
		t.Errorf("%q came from %v, %v", b[:k], from, err)
	}
	neighbours, err := netlink.NeighList(0, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range neighbours {
		for _, from := range false4 {
			if n.IP.String() == from {
				t.Errorf("the host believes that %s is its neighbour", from)
			}
		}
	}
}

// TestSixth tries IP of version 6, of which guests have none.
func TestSixth(t *testing.T) {
	n := newNetwork(t, nil)
	nic, dir := attach(t, n, "one")
	g := boot(t, nic)
	if err := n.Enable(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	r, err := readRecord(dir)
	if err != nil {
		t.Fatal(err)
	}
	veth, err := netlink.LinkByName(r.HostVeth)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := netlink.AddrList(veth, netlink.FAMILY_V6)
	if err != nil || len(ours) == 0 {
		t.Skipf("the host's end has no address of version 6 (%v): nothing to reach", err)
	}
	l, err := net.Listen("tcp6", "[::]:4222")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = Within(g.path, func() error {
		conn, err := net.DialTimeout("tcp6", net.JoinHostPort(ours[0].IP.String()+"%eth0", "4222"), briefly)
		if err == nil {
			conn.Close()
		}
		return err
	})
	if err == nil {
		t.Error("the guest reaches the host by version 6")
	}
}

// TestBeyond reaches what is beyond the host, and is not reached from there.
func TestBeyond(t *testing.T) {
	forwardAll(t)
	n := newNetwork(t, func(c *Config) { c.Egress = []string{"10.5.0.0/24:5432", "0.0.0.0/0:80"} })
	lan := neighbourhood(t)
	lan.serve(t, ":80") // of metadata, too
	lan.serve(t, ":5432")
	lan.serve(t, ":5433")
	nic, _ := attach(t, n, "one")
	g := boot(t, nic)
	g.serve(t, ":7000")
	serve(t, ":5432")
	if err := g.dial("tcp", "10.5.0.2:5432", briefly); err == nil {
		t.Error("the link carries before it is enabled")
	}
	if err := n.Enable(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if err := g.dial("tcp", "10.5.0.2:5432", patience); err != nil {
		t.Error(err)
	}
	if err := g.dial("tcp", "10.5.0.2:80", patience); err != nil {
		t.Error(err)
	}
	for _, address := range []string{"169.254.169.254:80", "168.63.129.16:80"} {
		if err := greet("tcp", address, patience); err != nil { // the host does reach it
			t.Error(err)
		}
	}
	for _, address := range []string{"169.254.169.254:80", "168.63.129.16:80", "10.5.0.2:5433", "10.5.0.1:5432" /* the host, which a range does not open */, "192.168.127.1:5432"} {
		if err := g.dial("tcp", address, briefly); err == nil {
			t.Errorf("the guest reaches %s", address)
		}
	}
	if err := Within(lan.path, func() error { return routeVia(nic.IP, "10.5.0.1") }); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(nic.IP, 7000).String()
	if err := lan.dial("tcp", to, briefly); err == nil {
		t.Error("the guest is reached from beyond the host")
	}
	if err := greet("tcp", to, patience); err != nil {
		t.Error(err)
	}
}

// TestForwardingNeeded is told of where it is off.
func TestForwardingNeeded(t *testing.T) {
	n := newNetwork(t, nil) // warns at most
	cfg := n.cfg
	cfg.Egress = []string{"nats", "10.5.0.0/24:5432"}
	if _, err := New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "net.ipv4.ip_forward=1") {
		t.Error(err)
	}
	attach(t, n, "one")
	if on, err := forwarding(); on || err != nil {
		t.Errorf("the host forwards: %v, %v", on, err)
	}
}

// forwardAll has the host forward packets until the test's end.
func forwardAll(t *testing.T) {
	t.Helper()
	if err := setForwarding(true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := setForwarding(false); err != nil {
			t.Error(err)
		}
	})
}

// neighbourhood is another machine, 10.5.0.2 and 169.254.169.254, on a network with the host, 10.5.0.1,
// which knows no way to the guests.
func neighbourhood(t *testing.T) *booted {
	t.Helper()
	g := &booted{path: filepath.Join(netnsDir, "lan")}
	if err := makeNetNS(g.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeNetNS(g.path); err != nil {
			t.Error(err)
		}
	})
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}, PeerName: "lan1"}
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(pair); err != nil {
			t.Error(err)
		}
	})
	f := open(t, g.path)
	peer, err := netlink.LinkByName("lan1")
	if err == nil {
		err = netlink.LinkSetNsFd(peer, int(f.Fd()))
	}
	if err := errors.Join(err, up("lan0", "10.5.0.1/24"), Within(g.path, func() error {
		return errors.Join(up("lan1", "10.5.0.2/24"), up("lan1", "169.254.169.254/32"), up("lan1", "168.63.129.16/32"))
	})); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(routeVia(netip.MustParseAddr("169.254.169.254"), "10.5.0.2"), routeVia(netip.MustParseAddr("168.63.129.16"), "10.5.0.2")); err != nil {
		t.Fatal(err)
	}
	return g
}
