package vmnet

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"time"

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

// again is when a repair that failed is tried once more.
const again = time.Second

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
		case err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, os.ErrDeadlineExceeded): // the first: so many that some are lost
			n.cfg.Log.Error("The firewall of machines is not watched any more", "error", err)
			return
		case err == nil && !bytes.Contains(b[:k], name):
			continue
		}
		var next time.Time // none
		if err := n.repair(); err != nil {
			n.cfg.Log.Error("The firewall of machines is not as it should be, which is tried again soon", "table", n.wall.table, "error", err)
			next = time.Now().Add(again)
		}
		_ = changes.SetReadDeadline(next) // fails only when it is closed
	}
}

// repair makes again what is missing of the firewall.
func (n *Network) repair() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.guests) == 0 {
		return nil
	}
	found, err := n.wall.look()
	if err != nil {
		return err
	}
	n.wall.ready = found.whole
	var errs []error
	for id, g := range n.guests {
		if found.whole && found.listed[g.veth] && found.gates[g.chain] == g.rules() {
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

// found is what there is of a firewall.
type found struct {
	whole  bool            // the table of what all guests may reach has all its rules
	listed map[string]bool // the interfaces that it takes for guests'
	gates  map[string]int  // the rules of each guest's chain
}

// look returns what there is. Rules are counted and not read: who changes
// single ones knows what he does.
func (f *firewall) look() (found, error) {
	conn, err := nftables.New()
	if err != nil {
		return found{}, err
	}
	l := found{listed: map[string]bool{}, gates: map[string]int{}}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyNetdev} {
		chains, err := conn.ListChainsOfTableFamily(family)
		if err != nil {
			return found{}, err
		}
		counts := map[string]int{}
		for _, c := range chains {
			if c.Table.Name != f.table {
				continue
			}
			rules, err := conn.GetRules(c.Table, c)
			if err != nil && !missing(err) { // it has gone since
				return found{}, err
			}
			counts[c.Name] = len(rules)
		}
		if family == nftables.TableFamilyINet {
			l.whole = maps.Equal(counts, f.rules)
		} else {
			l.gates = counts
		}
	}
	members, err := conn.GetSetElements(guestSet(f.inet()))
	if err != nil && !missing(err) {
		return found{}, err
	}
	for _, m := range members {
		l.listed[string(bytes.TrimRight(m.Key, "\x00"))] = true
	}
	return l, nil
}
