package vmnet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
)

// Network is the network of a node's machines. It is safe for concurrent use; one
// machine's network is made or undone at a time.
type Network struct {
	cfg  Config
	list *libcni.NetworkConfigList
	cni  *libcni.CNIConfig
	wall *firewall

	changes  *os.File // of nftables
	watching sync.WaitGroup

	mu     sync.Mutex
	guests map[string]guest // guarded by mu
}

// setupTime bounds how long the plugins take to make one machine's network, and
// cleanupTime the undoing of it.
const setupTime, cleanupTime = 20 * time.Second, 20 * time.Second

var (
	idPattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	nodePattern = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)
)

func netnsPath(id string) string { return filepath.Join(netnsDir, "nex-"+id) }

// New checks what a network needs, resolves the names in the egress rules, and
// makes nothing but files of the node's own. The error says what is missing. The
// network watches its firewall until [Network.Close].
func New(ctx context.Context, cfg Config) (*Network, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("network of machines: %w", err)
	}
	if !nodePattern.MatchString(cfg.Node) {
		return nil, fmt.Errorf("network of machines: %q is no name for a node", cfg.Node)
	}
	n := &Network{cfg: cfg, guests: map[string]guest{}}
	if n.list, err = cfg.conflist(cmp.Or(cfg.ConfDir, confDir)); err != nil {
		return nil, err
	}
	opened, err := cfg.openings(ctx)
	if err != nil {
		return nil, err
	}
	if err := cfg.checkForwarding(opened); err != nil {
		return nil, err
	}
	if n.wall, err = newFirewall("nex-"+cfg.Node, opened); err != nil {
		return nil, err
	}
	dirs, err := cfg.pluginDirs()
	if err != nil {
		return nil, fmt.Errorf("network of machines: %w", err)
	}
	n.cni = libcni.NewCNIConfigWithCacheDir(dirs, cfg.pluginCache(), nil)
	if _, err := n.cni.ValidateNetworkList(ctx, n.list); err != nil {
		return nil, fmt.Errorf("network of machines: %w (the plugins are in Debian's package containernetworking-plugins; looked in %s)", err, strings.Join(dirs, ", "))
	}
	if n.changes, err = listen(); err != nil {
		return nil, fmt.Errorf("watch the firewall of machines: %w", err)
	}
	n.watching.Go(func() { n.watch(n.changes) })
	return n, nil
}

// Close ends the watch over the firewall. Networks of machines stay as they are.
func (n *Network) Close() error {
	err := n.changes.Close()
	n.watching.Wait()
	return err
}

// Attach makes the network card of machine id, whose records are in dir. Nothing that
// the guest sends passes before [Network.Enable]. What was made is undone if it
// fails.
func (n *Network) Attach(ctx context.Context, id, dir string) (*NIC, error) {
	if !idPattern.MatchString(id) {
		return nil, fmt.Errorf("network of machine %q: the id has other characters than a-z, 0-9 and -", id)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if old, err := readRecord(dir); err != nil || old != nil {
		return nil, errors.Join(err, fmt.Errorf("machine %s has a network already", id))
	}
	if _, err := os.Lstat(netnsPath(id)); err == nil {
		return nil, fmt.Errorf("machine %s: there is a network namespace %s that its record does not tell of; if it is nobody's, remove it: ip netns delete nex-%s", id, netnsPath(id), id)
	}
	forward, err := forwarding()
	if err != nil {
		return nil, err
	}
	r := record{
		Version: 1, ID: id, NetNS: netnsPath(id), Table: n.wall.table, Chain: "guest-" + id,
		Interface: n.cfg.InterfaceName, Tap: "tap0", Network: n.list.Bytes, UnsetForward: !forward,
	}
	if err := r.write(dir); err != nil {
		return nil, fmt.Errorf("record the network of machine %s: %w", id, err)
	}
	nic, err := n.make(ctx, &r, dir)
	if err != nil {
		err = fmt.Errorf("network of machine %s: %w", id, err)
		return nil, errors.Join(err, n.undo(ctx, r, dir))
	}
	return nic, nil
}

// make does what the record says, and completes it.
func (n *Network) make(ctx context.Context, r *record, dir string) (*NIC, error) {
	if err := makeNetNS(r.NetNS); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, setupTime) // others wait meanwhile
	defer cancel()
	result, err := n.cni.AddNetworkList(bounded, n.list, n.runtime(*r))
	if r.UnsetForward {
		err = errors.Join(err, setForwarding(false)) // as it was
	}
	if err != nil {
		return nil, err
	}
	res, err := current.NewResultFromResult(result)
	if err != nil {
		return nil, err
	}
	nic, err := n.card(r, res)
	if err != nil {
		return nil, err
	}
	r.UnsetForward = false
	if err := r.write(dir); err != nil {
		return nil, err
	}
	veth, err := netlink.LinkByName(r.HostVeth)
	if err != nil {
		return nil, fmt.Errorf("interface %s of the host: %w", r.HostVeth, err)
	}
	// An address that was another machine's is not asked for, nor told by others.
	err = netlink.NeighSet(&netlink.Neigh{LinkIndex: veth.Attrs().Index, State: netlink.NUD_PERMANENT, IP: nic.IP.AsSlice(), HardwareAddr: nic.MAC})
	if err != nil {
		return nil, fmt.Errorf("neighbour %s on %s: %w", nic.IP, r.HostVeth, err)
	}
	g := guest{chain: r.Chain, veth: r.HostVeth, ip: nic.IP}
	if err := n.wall.add(g); err != nil {
		return nil, err
	}
	n.guests[r.ID] = g
	return nic, nil
}

// runtime says what the plugins are to make.
func (n *Network) runtime(r record) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: "nex-" + r.ID, NetNS: r.NetNS, IfName: r.Interface,
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"TC_REDIRECT_TAP_NAME", r.Tap},
			{"TC_REDIRECT_TAP_UID", strconv.Itoa(n.cfg.TapUID)},
			{"TC_REDIRECT_TAP_GID", strconv.Itoa(n.cfg.TapGID)},
		},
	}
}

// card reads what the plugins made: the tap in the namespace, the address of what
// stands for the guest, and the interface on the host's side.
func (n *Network) card(r *record, res *current.Result) (*NIC, error) {
	nic := &NIC{NetNS: r.NetNS, Nameservers: n.cfg.Nameservers}
	for i, made := range res.Interfaces {
		switch made.Sandbox {
		case "":
			if r.HostVeth != "" {
				return nil, fmt.Errorf("the network %s makes several interfaces on the host (%s and %s); of those only one can be guarded", n.list.Name, r.HostVeth, made.Name)
			}
			r.HostVeth, r.HostMAC = made.Name, made.Mac
		case r.NetNS:
			if made.Name != r.Interface {
				nic.Tap = made.Name
			}
		case "nex-" + r.ID:
			mac, err := net.ParseMAC(made.Mac)
			if err != nil {
				return nil, fmt.Errorf("hardware address of the guest: %w", err)
			}
			nic.MAC = mac
			for _, ip := range res.IPs {
				if ip.Interface != nil && *ip.Interface == i {
					nic.IP, _ = netip.AddrFromSlice(ip.Address.IP)
					nic.Gateway, _ = netip.AddrFromSlice(ip.Gateway)
					nic.IP, nic.Gateway, nic.Mask = nic.IP.Unmap(), nic.Gateway.Unmap(), ip.Address.Mask
				}
			}
		}
	}
	switch {
	case r.HostVeth == "" || nic.Tap == "" || !nic.IP.Is4():
		return nil, fmt.Errorf("the network %s makes no tap for a guest with an address of IPv4 and an interface on the host: it needs ptp and tc-redirect-tap", n.list.Name)
	case !n.cfg.Subnet.Contains(nic.IP) || nic.Gateway != n.cfg.gateway():
		return nil, fmt.Errorf("the network %s gives the address %s with the gateway %s, which is not of the subnet %s: make its configuration and \"cni.subnet\" agree", n.list.Name, nic.IP, nic.Gateway, n.cfg.Subnet)
	}
	r.IP = nic.IP.String()
	return nic, nil
}

// Enable lets the guest of machine id reach what the rules allow.
func (n *Network) Enable(_ context.Context, id string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	g, ok := n.guests[id]
	if !ok {
		return fmt.Errorf("machine %s has no network", id)
	}
	if err := n.wall.open(g); err != nil {
		return fmt.Errorf("network of machine %s: %w", id, err)
	}
	g.enabled = true
	n.guests[id] = g
	return nil
}

// Detach undoes the network of machine id. It is fine if there is none. After an
// error the record is still there, and Detach or [Sweep] may be tried again.
func (n *Network) Detach(ctx context.Context, id, dir string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	r, err := readRecord(dir)
	if err != nil || r == nil {
		return err
	}
	if r.ID != id {
		return fmt.Errorf("network of machine %s: the record in %s is of machine %s", id, dir, r.ID)
	}
	return n.undo(ctx, *r, dir)
}

// Sweep undoes the network of a machine that an earlier node left, as recorded in
// dir. No process of the machine may be alive, and no Network of that node. It is fine if there is no
// record. Of the configuration it takes where the plugins are and what they keep, so that
// it works when the rest is not good any more.
func Sweep(ctx context.Context, cfg Config, dir string) error {
	r, err := readRecord(dir)
	if err != nil || r == nil {
		return err
	}
	dirs, err := cfg.pluginDirs()
	if err != nil {
		return err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Network{
		cfg: cfg, guests: map[string]guest{}, wall: &firewall{table: r.Table},
		cni: libcni.NewCNIConfigWithCacheDir(dirs, cfg.pluginCache(), nil),
	}
	return n.undo(ctx, *r, dir)
}

// undo takes away what a record tells, then the record. It goes on after a step
// that failed, and takes its time whatever ctx has left: nobody else would do it.
func (n *Network) undo(ctx context.Context, r record, dir string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	var errs []error
	did := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	list, err := libcni.NetworkConfFromBytes(r.Network)
	did("network configuration", err)
	if err == nil {
		run := n.runtime(r)
		if !isNetNS(r.NetNS) { // killed before it was one, or gone with a restart of the host
			run.NetNS = ""
		}
		did("CNI", n.cni.DelNetworkList(ctx, list, run))
		did("leases", n.cfg.dropLeases(list.Name))
	}
	did("network namespace", removeNetNS(r.NetNS))
	did("interface of the host", removeVeth(r))
	if r.UnsetForward {
		did("forwarding", setForwarding(false))
	}
	n.forget(r)
	did("firewall", n.wall.remove(r.Table, r.Chain, r.HostVeth))
	delete(n.guests, r.ID)
	if len(errs) == 0 {
		did("record", r.remove(dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("undo the network of machine %s: %w", r.ID, err)
	}
	return nil
}

// removeVeth removes the host's end of the pair, which the plugins or the end of
// the namespace should have done.
func removeVeth(r record) error {
	if r.HostVeth == "" {
		return nil
	}
	link, err := netlink.LinkByName(r.HostVeth)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	if link.Attrs().HardwareAddr.String() != r.HostMAC {
		return nil // somebody else's by now
	}
	if err := netlink.LinkDel(link); err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) {
		if _, gone := netlink.LinkByName(r.HostVeth); errors.As(gone, &netlink.LinkNotFoundError{}) {
			return nil
		}
		return err
	}
	return nil
}

// forget ends what the kernel remembers of a guest's connections: its address may
// be another's next.
func (n *Network) forget(r record) {
	ip := net.ParseIP(r.IP)
	if ip == nil {
		return
	}
	var either []netlink.CustomConntrackFilter
	for _, end := range []netlink.ConntrackFilterType{netlink.ConntrackOrigSrcIP, netlink.ConntrackOrigDstIP} {
		f := &netlink.ConntrackFilter{}
		if err := f.AddIP(end, ip); err == nil {
			either = append(either, f)
		}
	}
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, either...); err != nil {
		n.cfg.Log.Debug("connections of a machine are remembered until they time out", "machine", r.ID, "error", err)
	}
}
