package vmnet

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nex/internal/nextest"
)

// newNetwork returns a network whose plugins are real ones.
func newNetwork(t *testing.T, change func(*Config)) *Network {
	t.Helper()
	nextest.Root(t)
	plugins := nextest.CNIPlugins(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Node: "ntest", StateDir: t.TempDir(), Program: program, BinPath: []string{plugins}, Nameservers: []netip.Addr{netip.MustParseAddr("192.168.127.1")}}
	if change != nil {
		change(&cfg)
	}
	return start(t, cfg)
}

// start returns a network that the test's end closes.
func start(t *testing.T, cfg Config) *Network {
	t.Helper()
	n, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// attach makes the network of a machine, which the test's end undoes.
func attach(t *testing.T, n *Network, id string) (*NIC, string) {
	t.Helper()
	dir := t.TempDir()
	nic, err := n.Attach(t.Context(), id, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Detach(t.Context(), id, dir); err != nil {
			t.Error(err)
		}
	})
	return nic, dir
}

// booted is what is behind a machine's tap in place of a VMM and a guest: a network
// namespace with real sockets, whose card is a tap too.
type booted struct{ path string }

// boot connects a namespace to the tap of a card.
func boot(t *testing.T, nic *NIC) *booted {
	t.Helper()
	outer, err := OpenTap(nic, false)
	if err != nil {
		t.Fatal(err)
	}
	return plug(t, filepath.Base(nic.NetNS), outer, nic)
}

// plug connects a namespace to a cable, of which a read or a write is a frame.
func plug(t *testing.T, name string, cable *os.File, nic *NIC) *booted {
	t.Helper()
	g := &booted{path: filepath.Join(netnsDir, "guest-"+name)}
	if err := makeNetNS(g.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeNetNS(g.path); err != nil {
			t.Error(err)
		}
	})
	err := Within(g.path, func() error {
		return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_ONE_QUEUE})
	})
	if err != nil {
		t.Fatal(err)
	}
	inner, err := OpenTap(&NIC{NetNS: g.path, Tap: "eth0"}, false)
	if err != nil {
		t.Fatal(err)
	}
	err = Within(g.path, func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return errors.Join(
			netlink.LinkSetHardwareAddr(eth0, nic.MAC),
			netlink.LinkSetUp(eth0),
			netlink.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: nic.IP.AsSlice(), Mask: nic.Mask}}),
			netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: nic.Gateway.AsSlice()}),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, pair := range [][2]*os.File{{cable, inner}, {inner, cable}} {
		wg.Go(func() { io.CopyBuffer(onlyWriter{pair[0]}, onlyReader{pair[1]}, make([]byte, 65536)) })
	}
	t.Cleanup(func() {
		cable.Close()
		inner.Close()
		wg.Wait()
	})
	return g
}

// A read of a tap is a frame; copies must not be clever.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// patience is how long an answer may take that is expected to come, and briefly
// how long one is waited for that is not.
const (
	patience = 10 * time.Second
	briefly  = 400 * time.Millisecond
)

// dial connects from the guest and wants the greeting of a server.
func (g *booted) dial(network, address string, within time.Duration) error {
	return Within(g.path, func() error { return greet(network, address, within) })
}

// greet connects to a server of [serve].
func greet(network, address string, within time.Duration) error {
	conn, err := net.DialTimeout(network, address, within)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(within))
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 5))
	return err
}

// bulk has a server of [serve] return more than fits into buffers, which comes in
// large segments.
func bulk(address string) error {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(2 * patience))
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	result := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		result <- err
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if !bytes.Equal(got, sent) {
		return errors.New("other bytes came back")
	}
	return <-result
}

// serve returns what comes to a port of the host, over TCP and UDP.
func serve(t *testing.T, address string) {
	t.Helper()
	serveIn(t, func(work func() error) error { return work() }, address)
}

func serveIn(t *testing.T, within func(func() error) error, address string) {
	t.Helper()
	var l net.Listener
	var p net.PacketConn
	err := within(func() (err error) {
		if l, err = net.Listen("tcp4", address); err == nil {
			p, err = net.ListenPacket("udp4", address)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer conn.Close(); io.Copy(conn, conn) })
		}
	})
	wg.Go(func() {
		for b := make([]byte, 1500); ; {
			n, from, err := p.ReadFrom(b)
			if err != nil {
				return
			}
			p.WriteTo(b[:n], from)
		}
	})
	t.Cleanup(func() { l.Close(); p.Close(); wg.Wait() })
}

// give gives an interface of this namespace an address, and takes it at the end.
func give(t *testing.T, name, cidr string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr(cidr)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.AddrDel(link, addr); err != nil && !errors.Is(err, unix.ENODEV) {
			t.Error(err)
		}
	})
}

// serve is serve for the guest.
func (g *booted) serve(t *testing.T, address string) {
	t.Helper()
	serveIn(t, func(work func() error) error { return Within(g.path, work) }, address)
}

// up brings an interface of this namespace up, with an address.
func up(name, cidr string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(cidr)
	return errors.Join(err, netlink.AddrAdd(link, addr), netlink.LinkSetUp(link))
}

// routeVia leads to an address by way of another.
func routeVia(to netip.Addr, gateway string) error {
	return netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: to.AsSlice(), Mask: net.CIDRMask(32, 32)}, Gw: net.ParseIP(gateway)})
}

// open opens a file until the test's end.
func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
