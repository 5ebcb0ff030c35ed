package hostsvc

import (
	"net/netip"
	"testing"

	"nex"
)

func TestSpecialAddresses(t *testing.T) {
	var e egress
	for _, s := range []string{
		"0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.1.1", "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255",
		"192.0.0.8", "192.168.1.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
		"64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::8.8.8.8", "2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::",
		"2001::1", "2001:db8::1", "3fff::1", "100::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "4000::1",
	} {
		err := e.check("x", netip.MustParseAddr(s))
		if nex.CodeOf(err) != nex.Denied {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{
		"1.1.1.1", "8.8.8.8", "11.0.0.1", "100.128.0.1", "172.15.0.1", "172.32.0.1", "169.253.0.1", "192.169.0.1", "223.255.255.255", "126.1.1.1", "128.0.0.1",
		"2606:4700::1111", "2a00::1", "64:ff9b::8.8.8.8", "2002:808:808::1", "::ffff:8.8.8.8",
	} {
		if err := e.check("x", netip.MustParseAddr(s)); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func TestEgressLists(t *testing.T) {
	list := func(s ...string) hosts {
		h, err := parseHosts(s)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	for name, c := range map[string]struct {
		allow, deny   hosts
		host, address string
		want          bool
	}{
		"a range":                {list("10.0.0.0/8"), list(), "x", "10.1.1.1", true},
		"another range":          {list("10.0.0.0/8"), list(), "x", "192.168.1.1", false},
		"an address":             {list("10.0.0.7"), list(), "x", "10.0.0.7", true},
		"beside an address":      {list("10.0.0.7"), list(), "x", "10.0.0.8", false},
		"a mapped address":       {list("10.0.0.0/8"), list(), "x", "::ffff:10.1.1.1", true},
		"by a gateway":           {list("10.0.0.0/8"), list(), "x", "64:ff9b::10.1.1.1", true},
		"a link of some scope":   {list("fe80::/10"), list(), "x", "fe80::1%eth0", true},
		"a host":                 {list("db.internal"), list(), "db.internal", "10.1.1.1", true},
		"another host":           {list("db.internal"), list(), "xdb.internal", "10.1.1.1", false},
		"below":                  {list("*.internal"), list(), "a.db.internal", "10.1.1.1", true},
		"not below":              {list("*.internal"), list(), "internal", "10.1.1.1", false},
		"in capitals":            {list("DB.Internal."), list(), "db.internal", "10.1.1.1", true},
		"everywhere":             {list("*"), list(), "x", "127.0.0.1", true},
		"everywhere, by address": {list("*"), list(), "127.0.0.1", "127.0.0.1", true},
		"no host is an address":  {list("*.1"), list(), "127.0.0.1", "127.0.0.1", false},
		"deny wins":              {list("10.0.0.0/8", "x"), list("10.1.0.0/16"), "x", "10.1.1.1", false},
		"deny wins, mapped":      {list("*"), list("10.1.0.0/16"), "x", "::ffff:10.1.1.1", false},
		"deny wins, by gateway":  {list("*"), list("8.8.0.0/16"), "x", "64:ff9b::8.8.8.8", false},
		"a public one is denied": {list(), list("8.8.8.8"), "x", "8.8.8.8", false},
	} {
		err := egress{c.allow, c.deny}.check(c.host, netip.MustParseAddr(c.address))
		if (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{"", "10.0.0.0/33", "a b", "http://x", "*x", "a.*", "ü.de", "*.*.x", "a..b", "::ffff:10.0.0.0/104"} {
		if _, err := parseHosts([]string{bad}); err == nil {
			t.Errorf("%q was accepted", bad)
		} else {
			t.Logf("%q: %v", bad, err)
		}
	}
}
