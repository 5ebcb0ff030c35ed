package vmnet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// firewall holds guests in. It has two tables of nftables with one name: in the
// one of family netdev a chain for each guest, which every frame from it meets
// first; in the one of family inet what all guests may reach. Tables are there while
// there are guests.
//
// It belongs to whoever holds the Network's lock.
type firewall struct {
	table  string
	opened []opening
	ready  bool           // the table of family inet is as it should be
	rules  map[string]int // how many each of its chains has
}

// guest is one machine in the firewall.
type guest struct {
	chain string
	veth  string // the host's end
	ip    netip.Addr

	enabled bool // what it sends passes
}

// newFirewall sees that the kernel has what it takes, in a network namespace that
// is gone afterwards.
func newFirewall(table string, opened []opening) (*firewall, error) {
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		trial := &firewall{table: table, opened: opened}
		g := guest{chain: "guest", veth: "lo", ip: netip.AddrFrom4([4]byte{127, 0, 0, 1})}
		if err := trial.add(g); err != nil {
			return err
		}
		return trial.open(g)
	})
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("network of machines: it takes root: %w", err)
	case err != nil:
		return nil, fmt.Errorf("network of machines: the kernel lacks what holds guests in: nftables (nf_tables with the families inet and netdev, nft_ct, nft_masq, nft_reject_inet): %w", err)
	}
	return &firewall{table: table, opened: opened}, nil
}

func (f *firewall) inet() *nftables.Table {
	return &nftables.Table{Name: f.table, Family: nftables.TableFamilyINet}
}

func gates(table string) *nftables.Table {
	return &nftables.Table{Name: table, Family: nftables.TableFamilyNetdev}
}

// guestSet is the set of the host's ends of all guests.
func guestSet(t *nftables.Table) *nftables.Set {
	return &nftables.Set{Table: t, Name: "guests", KeyType: nftables.TypeIFName}
}

func element(veth string) []nftables.SetElement {
	return []nftables.SetElement{{Key: interfaceName(veth)}}
}

func interfaceName(s string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, s)
	return b
}

// add puts a guest behind the wall, cut off.
func (f *firewall) add(g guest) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	set := guestSet(f.inet())
	if !f.ready {
		if set, err = f.install(conn); err != nil {
			return err
		}
	}
	if err := conn.SetAddElements(set, element(g.veth)); err != nil {
		return err
	}
	t := conn.AddTable(gates(f.table))
	c := conn.AddChain(g.gate(t))
	conn.FlushChain(c)
	conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: []expr.Any{drop()}})
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("firewall: %w", err)
	}
	f.ready = true
	return nil
}

// gate is the chain that frames from a guest meet first.
func (g guest) gate(t *nftables.Table) *nftables.Chain {
	policy := nftables.ChainPolicyDrop // what somebody takes the rules out of lets nothing in
	return &nftables.Chain{
		Name: g.chain, Table: t, Type: nftables.ChainTypeFilter, Device: g.veth,
		Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter, Policy: &policy,
	}
}

// rules is how many the guest's gate has.
func (g guest) rules() int {
	if g.enabled {
		return 3 // see open
	}
	return 1
}

// open lets a guest's frames in that are of its own address.
func (f *firewall) open(g guest) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	t := gates(f.table)
	c := &nftables.Chain{Name: g.chain, Table: t}
	conn.FlushChain(c)
	ip := g.ip.As4()
	for _, from := range []struct {
		protocol uint16
		offset   uint32 // of the sender's address
	}{{unix.ETH_P_IP, 12}, {unix.ETH_P_ARP, 14}} {
		conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
			equal(binary.BigEndian.AppendUint16(nil, from.protocol)),
			network(from.offset, 4),
			equal(ip[:]),
			&expr.Verdict{Kind: expr.VerdictAccept},
		}})
	}
	conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: []expr.Any{drop()}})
	return conn.Flush()
}

// remove takes a guest away, and the tables with the last one. What is not there is
// fine.
func (f *firewall) remove(table, chain, veth string) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return err
	}
	others := 0
	for _, c := range chains {
		switch {
		case c.Table.Name != table:
		case c.Name == chain:
			conn.DelChain(c) // with its rules
		default:
			others++
		}
	}
	if others == 0 {
		for _, family := range []nftables.TableFamily{nftables.TableFamilyNetdev, nftables.TableFamilyINet} {
			t, err := conn.ListTableOfFamily(table, family)
			if errors.Is(err, fs.ErrNotExist) || t == nil {
				continue
			}
			if err != nil {
				return err
			}
			conn.DelTable(t)
		}
		f.ready = f.ready && table != f.table
	} else if err := unlist(conn, table, veth); err != nil {
		return err
	}
	return conn.Flush()
}

// missing reports whether what the kernel was asked about is not there. Of some errors the
// library keeps the text alone.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || strings.HasSuffix(err.Error(), unix.ENOENT.Error())
}

// unlist takes a guest's interface out of the set of all, if it is there.
func unlist(conn *nftables.Conn, table, veth string) error {
	set := guestSet(&nftables.Table{Name: table, Family: nftables.TableFamilyINet})
	listed, err := conn.GetSetElements(set)
	if err != nil && missing(err) {
		return nil
	}
	for _, e := range listed {
		if bytes.Equal(e.Key, interfaceName(veth)) {
			return conn.SetDeleteElements(set, element(veth))
		}
	}
	return err
}

// install makes the table of what all guests may reach, or makes it anew.
func (f *firewall) install(conn *nftables.Conn) (*nftables.Set, error) {
	t := conn.AddTable(f.inet())
	set := guestSet(t)
	if err := conn.AddSet(set, nil); err != nil {
		return nil, err
	}
	accept := nftables.ChainPolicyAccept
	base := func(name string, hook *nftables.ChainHook, kind nftables.ChainType, priority *nftables.ChainPriority) *nftables.Chain {
		return conn.AddChain(&nftables.Chain{Name: name, Table: t, Hooknum: hook, Type: kind, Priority: priority, Policy: &accept})
	}
	input := base("input", nftables.ChainHookInput, nftables.ChainTypeFilter, nftables.ChainPriorityFilter)
	forward := base("forward", nftables.ChainHookForward, nftables.ChainTypeFilter, nftables.ChainPriorityFilter)
	source := base("source", nftables.ChainHookPostrouting, nftables.ChainTypeNAT, nftables.ChainPriorityNATSource)
	host := conn.AddChain(&nftables.Chain{Name: "host", Table: t})
	beyond := conn.AddChain(&nftables.Chain{Name: "beyond", Table: t})
	inward := conn.AddChain(&nftables.Chain{Name: "inward", Table: t})
	conn.FlushTable(t) // the rules of an earlier node
	f.rules = map[string]int{input.Name: 0, forward.Name: 0, source.Name: 0, host.Name: 0, beyond.Name: 0, inward.Name: 0}
	rule := func(c *nftables.Chain, exprs ...[]expr.Any) {
		f.rules[c.Name]++
		var all []expr.Any
		for _, e := range exprs {
			all = append(all, e...)
		}
		conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: all})
	}
	rule(input, isGuest(set, expr.MetaKeyIIFNAME, false), to("host"))
	rule(forward, isGuest(set, expr.MetaKeyIIFNAME, false), to("beyond"))
	rule(forward, isGuest(set, expr.MetaKeyOIFNAME, false), to("inward"))
	rule(source, isGuest(set, expr.MetaKeyIIFNAME, false), isGuest(set, expr.MetaKeyOIFNAME, true), []expr.Any{&expr.Masq{}})

	for _, c := range []*nftables.Chain{host, beyond} {
		rule(c, []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}}, drop()})
	}
	rule(beyond, isGuest(set, expr.MetaKeyOIFNAME, false), refuse())
	for _, c := range []*nftables.Chain{host, beyond} {
		rule(c, destination(metadata), refuse())
		rule(c, answers())
		open := func(ranges bool) {
			for _, o := range f.opened {
				if o.net.Bits() < 32 == ranges {
					rule(c, destination(o.net), o.match(), []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}})
				}
			}
		}
		open(false)
		if c == beyond { // a range opens nothing of the host itself
			for _, a := range alone {
				rule(c, destination(a), refuse())
			}
			open(true)
		}
		rule(c, []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{unix.IPPROTO_TCP}), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}})
		rule(c, refuse())
	}
	rule(inward, answers())
	rule(inward, []expr.Any{drop()})
	return set, nil
}

// What rules are made of.

func drop() expr.Any { return &expr.Verdict{Kind: expr.VerdictDrop} }

func to(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}

func refuse() []expr.Any {
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
}

func equal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

func network(offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length}
}

func isGuest(set *nftables.Set, key expr.MetaKey, not bool) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID, Invert: not}}
}

// answers accepts what belongs to a connection that was accepted.
func answers() []expr.Any {
	mask := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}

func destination(p netip.Prefix) []expr.Any {
	address := p.Addr().As4()
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-p.Bits()))
	return []expr.Any{
		network(16, 4),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		equal(address[:]),
	}
}

// match is about the protocol and the ports.
func (o opening) match() []expr.Any {
	protocol := byte(unix.IPPROTO_TCP)
	if o.udp {
		protocol = unix.IPPROTO_UDP
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		equal([]byte{protocol}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: binary.BigEndian.AppendUint16(nil, o.from), ToData: binary.BigEndian.AppendUint16(nil, o.to)},
	}
}
