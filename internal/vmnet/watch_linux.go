package vmnet

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// listen returns the kernel's messages about changes of nftables.
func listen() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "nftables"), nil
}

// watch repairs the firewall when others took it away, as "nft flush ruleset" and a
// restart of nftables.service do: guests would reach all that the host does. It
// returns when changes is closed.
func (n *Network) watch(changes *os.File) {
	name := append([]byte(n.wall.table), 0)
	for b := make([]byte, 1<<16); ; {
		k, err := changes.Read(b)
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil && !errors.Is(err, unix.ENOBUFS): // that one: so many that some are lost
			n.cfg.Log.Error("The firewall of machines is not watched any more", "error", err)
			return
		case err == nil && !bytes.Contains(b[:k], name):
			continue
		}
		if err := n.repair(); err != nil {
			n.cfg.Log.Error("The firewall of machines is not as it should be", "table", n.wall.table, "error", err)
		}
	}
}

// repair makes again what is missing of the firewall.
func (n *Network) repair() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.guests) == 0 {
		return nil
	}
	whole, gates, err := n.wall.look()
	if err != nil {
		return err
	}
	n.wall.ready = whole
	var errs []error
	for id, g := range n.guests {
		if n.wall.ready && gates[g.chain] {
			continue
		}
		if _, err := netlink.LinkByName(g.veth); errors.As(err, &netlink.LinkNotFoundError{}) {
			continue // nothing comes from there any more
		}
		n.cfg.Log.Warn("Somebody took a machine's firewall away; it is made again", "machine", id, "table", n.wall.table)
		err := n.wall.add(g)
		if err == nil && g.enabled {
			err = n.wall.open(g)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("machine %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// look returns whether the table of what all guests may reach is there, and the
// chains of guests.
func (f *firewall) look() (whole bool, gates map[string]bool, err error) {
	conn, err := nftables.New()
	if err != nil {
		return false, nil, err
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, nil, err
	}
	for _, t := range tables {
		whole = whole || t.Name == f.table
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return false, nil, err
	}
	gates = map[string]bool{}
	for _, c := range chains {
		if c.Table.Name == f.table {
			gates[c.Name] = true
		}
	}
	return whole, gates, nil
}
