package vmnet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// TestReach connects from a guest to what the rules allow and to what they do not.
func TestReach(t *testing.T) {
	n := newNetwork(t, nil)
	nic, _ := attach(t, n, "one")
	g := boot(t, nic)
	serve(t, ":4222")
	serve(t, ":53")
	serve(t, ":9999")
	serve(t, ":80")
	give(t, "lo", "169.254.169.254/32")
	give(t, "lo", "10.77.0.1/32")

	if err := g.dial("tcp", "192.168.127.1:4222", briefly); err == nil {
		t.Error("the link carries before it is enabled")
	}
	if err := n.Enable(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if err := Within(g.path, func() error { return bulk("192.168.127.1:4222") }); err != nil {
		t.Error(err)
	}
	for _, test := range []struct {
		network, address string
		reached          bool
	}{
		{"tcp", "192.168.127.1:4222", true},
		{"udp", "192.168.127.1:53", true},
		{"tcp", "192.168.127.1:53", true},
		{"udp", "192.168.127.1:4222", false},
		{"tcp", "192.168.127.1:9999", false},
		{"udp", "192.168.127.1:9999", false},
		{"tcp", "10.77.0.1:4222", false},
		{"tcp", "10.77.0.1:9999", false},
		{"tcp", "169.254.169.254:80", false},
		{"udp", "169.254.169.254:80", false},
	} {
		wait := briefly
		if test.reached {
			wait = patience
		}
		if err := g.dial(test.network, test.address, wait); (err == nil) != test.reached {
			t.Errorf("%s %s: %v", test.network, test.address, err)
		}
	}
}

// spoilers are what others may do to the firewall of a node, whose guests are one, whose link is open, and two.
var spoilers = map[string]func(conn *nftables.Conn, n *Network){
	"all rules": func(conn *nftables.Conn, _ *Network) { conn.FlushRuleset() },
	"one table": func(conn *nftables.Conn, n *Network) { conn.DelTable(n.wall.inet()) },
	"the gates": func(conn *nftables.Conn, n *Network) { conn.DelTable(gates(n.wall.table)) },
	"emptied":   func(conn *nftables.Conn, n *Network) { conn.FlushTable(n.wall.inet()) },
	"one chain": func(conn *nftables.Conn, n *Network) {
		conn.FlushChain(&nftables.Chain{Name: "host", Table: n.wall.inet()})
	},
	"one gate": func(conn *nftables.Conn, n *Network) {
		conn.FlushChain(&nftables.Chain{Name: "guest-two", Table: gates(n.wall.table)})
	},
	"the members": func(conn *nftables.Conn, n *Network) { conn.FlushSet(guestSet(n.wall.inet())) },
}

// TestFlushed has somebody take the firewall away, or parts of it.
func TestFlushed(t *testing.T) {
	n := newNetwork(t, nil)
	var guests []*booted
	for _, id := range []string{"one", "two"} {
		nic, _ := attach(t, n, id)
		guests = append(guests, boot(t, nic))
	}
	if err := n.Enable(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	serve(t, ":4222")
	serve(t, ":9999")
	for what, spoil := range spoilers {
		conn, err := nftables.New()
		if err != nil {
			t.Fatal(err)
		}
		spoil(conn, n)
		if err := conn.Flush(); err != nil {
			t.Fatal(what, err)
		}
		deadline, tick := time.After(patience), time.Tick(time.Millisecond)
		for back := false; !back; {
			select {
			case <-deadline:
				t.Fatal(what, ": the firewall does not come back")
			case <-tick:
			}
			n.mu.Lock() // whoever makes it again holds this
			found, err := n.wall.look()
			n.mu.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			back = found.whole && len(found.listed) == 2 && found.gates["guest-one"] == 3 && found.gates["guest-two"] == 1
		}
		if err := guests[0].dial("tcp", "192.168.127.1:4222", patience); err != nil {
			t.Error(err)
		}
		if err := guests[0].dial("tcp", "192.168.127.1:9999", briefly); err == nil {
			t.Error(what, ": the guest reaches what it may not")
		}
		if err := guests[1].dial("tcp", "192.168.127.1:4222", briefly); err == nil {
			t.Error(what, ": the link carries before it is enabled")
		}
	}
}

// TestNothingStays looks for what is left of machines that were detached or swept.
func TestNothingStays(t *testing.T) {
	before := host(t)
	n := newNetwork(t, nil)
	if made := host(t); made != before {
		t.Errorf("before:\n%s\nafter New:\n%s", before, made)
	}
	dirs := map[string]string{"one": t.TempDir(), "two": t.TempDir()}
	for id, dir := range dirs {
		if _, err := n.Attach(t.Context(), id, dir); err != nil {
			t.Fatal(err)
		}
	}
	if during := host(t); during == before {
		t.Fatal("nothing was made")
	}
	if err := n.Detach(t.Context(), "one", dirs["one"]); err != nil {
		t.Error(err)
	}
	if listed := listed(t, n); len(listed) != 1 {
		t.Errorf("of two guests one is left, and in the firewall are %q", listed)
	}
	again := start(t, n.cfg) // the next process of the node
	if err := Sweep(t.Context(), n.cfg, dirs["two"]); err != nil {
		t.Error(err)
	}
	if after := host(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	for id, dir := range dirs {
		if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
			t.Errorf("the directory of %s: %v, %v", id, files, err)
		}
		if err := again.Detach(t.Context(), id, dir); err != nil {
			t.Errorf("once more: %v", err)
		}
		if err := Sweep(t.Context(), n.cfg, dir); err != nil {
			t.Errorf("once more: %v", err)
		}
	}
	leases, err := filepath.Glob(filepath.Join(n.cfg.StateDir, "cni", "leases", "*", "192.*"))
	if err != nil || len(leases) > 0 {
		t.Errorf("leases: %v, %v", leases, err)
	}
	cached, err := filepath.Glob(filepath.Join(n.cfg.StateDir, "cni", "cache", "*", "*"))
	if err != nil || len(cached) > 0 {
		t.Errorf("results: %v, %v", cached, err)
	}
}

// listed returns the interfaces that the firewall knows for guests'.
func listed(t *testing.T, n *Network) (names []string) {
	t.Helper()
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	elements, err := conn.GetSetElements(guestSet(n.wall.inet()))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range elements {
		names = append(names, strings.TrimRight(string(e.Key), "\x00"))
	}
	return names
}

// host describes what machines could leave on a host.
func host(t *testing.T) string {
	t.Helper()
	var all []string
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		all = append(all, "link "+l.Attrs().Name)
	}
	names, err := filepath.Glob(netnsDir + "/*")
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, names...)
	conn, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := conn.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		all = append(all, "table "+table.Name)
	}
	neighbours, err := netlink.NeighList(0, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range neighbours {
		all = append(all, "neighbour "+n.IP.String())
	}
	forward, err := os.ReadFile(forwardFile)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(append(all, "forwarding "+string(forward)), "\n")
}
