package guestos

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	address := netip.MustParsePrefix("172.31.0.2/30")
	gateway := netip.MustParseAddr("172.31.0.1")
	for line, want := range map[string]Settings{
		"":                     {},
		"quiet reboot=t":       {},
		"nex.guest=0 ro":       {},
		"quiet nex.guest=1\n":  {Guest: true},
		"a=1 nex.guest=1 a=1 ": {Guest: true},
		"ip=172.31.0.2::172.31.0.1:255.255.255.252::eth0:off": {Network: &Network{Address: address, Gateway: gateway, Device: "eth0"}},
		"ip=172.31.0.2:::255.255.255.252:web-1.x:ens3:none":   {Network: &Network{Address: address, Device: "ens3", Hostname: "web-1.x"}},
		"nex.dns=10.0.0.1,fd00::1":                            {DNS: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}},
		"nex.dns=10.0.0.1 nex.dns.tcp=1":                      {DNS: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, DNSTCP: true},
		"nex.guest=1 ip=10.0.0.2::10.0.0.1:255.0.0.0::eth0:off nex.dns=9.9.9.9": {
			Guest: true, DNS: []netip.Addr{netip.MustParseAddr("9.9.9.9")},
			Network: &Network{Address: netip.MustParsePrefix("10.0.0.2/8"), Gateway: netip.MustParseAddr("10.0.0.1"), Device: "eth0"},
		},
	} {
		if got, err := Parse(line); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
}

func TestResolvConf(t *testing.T) {
	for line, want := range map[string]string{
		"nex.dns=10.0.0.1,fd00::1":       "nameserver 10.0.0.1\nnameserver fd00::1\n",
		"nex.dns=10.0.0.1 nex.dns.tcp=1": "nameserver 10.0.0.1\noptions use-vc\n",
	} {
		s, err := Parse(line)
		if got := s.resolvConf(); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", line, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for line, why := range map[string]string{
		"ip=":                                                     "1 fields",
		"ip=dhcp":                                                 "1 fields",
		"ip=::::::off":                                            "address",
		"ip=1.2.3.4::1.2.3.1:255.0.0.0::e":                        "6 fields",
		"ip=01.2.3.4:::255.0.0.0::eth0:off":                       "address",
		"ip=fd00--1:::255.0.0.0::eth0:off":                        "address",
		"ip=0.0.0.0:::255.0.0.0::eth0:off":                        "address",
		"ip=224.0.0.1:::255.0.0.0::eth0:off":                      "address",
		"ip=1.2.3.4:5.6.7.8::255.0.0.0::eth0:off":                 "server",
		"ip=1.2.3.4:::255.0.255.0::eth0:off":                      "mask",
		"ip=1.2.3.4:::0.0.0.0::eth0:off":                          "mask",
		"ip=1.2.3.4:::24::eth0:off":                               "mask",
		"ip=1.2.3.4::1.2.4.1:255.255.255.0::eth0:off":             "not in 1.2.3.0/24",
		"ip=1.2.3.4::1.2.3.4:255.255.255.0::eth0:off":             "not in",
		"ip=1.2.3.4:::255.255.255.0::eth0:dhcp":                   "want off",
		"ip=1.2.3.4:::255.255.255.0::eth0:":                       "want off",
		"ip=1.2.3.4:::255.255.255.0:::off":                        "device",
		"ip=1.2.3.4:::255.255.255.0::../x:off":                    "device",
		"ip=1.2.3.4:::255.255.255.0::0123456789abcdef:off":        "device",
		"ip=1.2.3.4:::255.255.255.0:-x:eth0:off":                  "host name",
		"ip=1.2.3.4:::255.255.255.0::a:off ip=1.2.3.4:::2::a:off": "twice",
		"nex.dns=":             "server",
		"nex.dns=1.2.3.4,":     "server",
		"nex.dns=fe80::1%eth0": "server",
		"nex.dns=0.0.0.0":      "server",
		"nex.dns.tcp=yes":      "wants 1",
		"nex.dns=1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4": "more than 3",
		"nex.guest=1 nex.guest=0":                 "twice",
	} {
		if s, err := Parse(line); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %+v, error %v, want one with %q", line, s, err, why)
		}
	}
}

// FuzzParse: whatever a command line says, what comes of it can be used.
func FuzzParse(f *testing.F) {
	f.Add("quiet nex.guest=1 ip=172.31.0.2::172.31.0.1:255.255.255.252:h:eth0:off nex.dns=172.31.0.1,fd00::1")
	f.Add("nex.dns=10.0.0.1,fd00::1 nex.dns.tcp=1")
	f.Add("ip=::::::off nex.dns=,")
	f.Fuzz(func(t *testing.T, line string) {
		s, err := Parse(line)
		if err != nil {
			if !reflect.DeepEqual(s, Settings{}) {
				t.Errorf("error %v, yet %+v", err, s)
			}
			return
		}
		if s.Guest && !slices.Contains(strings.Fields(line), Marker) {
			t.Error("a guest without the marker")
		}
		if n := s.Network; n != nil {
			if !n.Address.IsValid() || !n.Address.Addr().Is4() || n.Gateway.IsValid() && !n.Address.Contains(n.Gateway) {
				t.Errorf("network %+v", n)
			}
			if n.Device == "" || len(n.Device) > 15 || strings.ContainsAny(n.Device, "/ \x00\n") || strings.ContainsAny(n.Hostname, "/ \x00\n") {
				t.Errorf("names in %+v", n)
			}
		}
		lines := len(s.DNS)
		if s.DNSTCP {
			lines++
		}
		if text := s.resolvConf(); strings.Count(text, "\n") != lines || len(s.DNS) > maxDNS || strings.Count(text, "nameserver ") != len(s.DNS) {
			t.Errorf("resolv.conf %q of %v", text, s.DNS)
		}
	})
}
