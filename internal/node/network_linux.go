package node

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"nex/internal/machine/microvm"
	"nex/internal/machine/qemu"
	"nex/internal/vmnet"
)

// tellApart is how much of a node's id tells its networks from those of other
// nodes of the host.
const tellApart = 12

// networkConfig is the network of microVMs as it is configured.
func networkConfig(cfg Config, state *state) (vmnet.Config, error) {
	id, err := state.identity()
	if err != nil {
		return vmnet.Config{}, err
	}
	program, err := os.Executable()
	if err != nil {
		return vmnet.Config{}, fmt.Errorf("find this program: %w", err)
	}
	dir, err := filepath.Abs(state.dir)
	if err != nil {
		return vmnet.Config{}, err
	}
	c := cfg.Settings.CNI
	return vmnet.Config{
		Node: id.id[:tellApart], StateDir: dir, Program: program, BinPath: cfg.Settings.PluginDirs(dir),
		ConfDir: c.ConfDir, NetworkName: c.NetworkName,
		InterfaceName: c.InterfaceName, Subnet: c.Subnet, Nameservers: c.Nameservers, Egress: cfg.Settings.Egress,
		NATS: cfg.Settings.EgressNATS, Log: cfg.Log,
	}, nil
}

// taps are networks whose host's end is a tap.
type taps struct{ *vmnet.Network }

var _ microvm.Network = taps{}

func newTaps(ctx context.Context, cfg Config, state *state) (microvm.Network, error) {
	c, err := networkConfig(cfg, state)
	if err != nil {
		return nil, err
	}
	n, err := vmnet.New(ctx, c)
	if err != nil {
		return nil, err // not n: a nil *Network is no nil Network
	}
	return taps{n}, nil
}

// Attach implements [microvm.Network].
func (t taps) Attach(ctx context.Context, id, dir string) (*microvm.NIC, error) {
	n, err := t.Network.Attach(ctx, id, dir)
	if err != nil {
		return nil, err
	}
	bits, _ := n.Mask.Size()
	return &microvm.NIC{
		NetNS: n.NetNS, Tap: n.Tap, MAC: n.MAC, Addr: netip.PrefixFrom(n.IP, bits), Gateway: n.Gateway, Nameservers: n.Nameservers,
	}, nil
}

// Enable implements [microvm.Network].
func (t taps) Enable(id string) error { return t.Network.Enable(context.Background(), id) }

// newUserNet is the network of QEMU's own.
func newUserNet(ctx context.Context, cfg Config, state *state) (*qemu.UserNet, error) {
	c, err := networkConfig(cfg, state)
	if err != nil {
		return nil, err
	}
	forwarder := c.Program
	c.Program = qemu.ForwarderPath
	u, err := vmnet.UserNet(ctx, c, qemu.NetID)
	if err != nil {
		return nil, err
	}
	bits, _ := u.Mask.Size()
	nic := microvm.NIC{MAC: u.MAC, Addr: netip.PrefixFrom(u.IP, bits), Gateway: u.Gateway, Nameservers: u.Nameservers, DNSOverTCP: true}
	return &qemu.UserNet{NIC: nic, Netdev: u.Netdev, Forwarder: forwarder}, nil
}

// connectQEMU gives a launcher its network, as it is configured, and says what
// that is.
func connectQEMU(ctx context.Context, cfg Config, state *state, l *qemu.Launcher) (kind string, err error) {
	kind = cfg.Settings.QEMU.Network
	if kind == "auto" {
		kind = "user"
		if os.Geteuid() == 0 {
			if l.Network, err = newTaps(ctx, cfg, state); err == nil {
				return "tap", nil
			}
			cfg.Log.Warn("QEMU's own network is used for services, which is slower: there are no taps", "cause", err)
		}
	}
	switch kind {
	case "tap":
		l.Network, err = newTaps(ctx, cfg, state)
	case "user":
		l.UserNet, err = newUserNet(ctx, cfg, state)
	}
	return kind, err
}

// sweepNetwork undoes the network of a machine that an earlier node left, as it is
// recorded in a directory.
func (s *state) sweepNetwork(ctx context.Context, cfg Config, records string) error {
	c, err := networkConfig(cfg, s)
	if err != nil {
		return err
	}
	return vmnet.Sweep(ctx, c, records)
}
