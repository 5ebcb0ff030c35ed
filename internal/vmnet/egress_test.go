package vmnet

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseRule(t *testing.T) {
	for text, want := range map[string]Rule{
		"nats":                     {kind: natsRule},
		"dns":                      {kind: dnsRule},
		"10.0.0.0/8:5432":          {kind: rangeRule, net: netip.MustParsePrefix("10.0.0.0/8"), from: 5432, to: 5432},
		"0.0.0.0/0:443":            {kind: rangeRule, net: netip.MustParsePrefix("0.0.0.0/0"), from: 443, to: 443},
		"192.0.2.1:123/udp":        {kind: rangeRule, net: netip.MustParsePrefix("192.0.2.1/32"), from: 123, to: 123, udp: true},
		"192.0.2.1:1-65535/tcp":    {kind: rangeRule, net: netip.MustParsePrefix("192.0.2.1/32"), from: 1, to: 65535},
		"db.example.com:5432-5433": {kind: nameRule, name: "db.example.com", from: 5432, to: 5433},
		"localhost-2:1":            {kind: nameRule, name: "localhost-2", from: 1, to: 1},
	} {
		want.text = text
		if got, err := ParseRule(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for text, why := range map[string]string{
		"":                     "no port",
		"NATS":                 "no port",
		"10.0.0.1":             "no port",
		"10.0.0.1:":            "from 1 to 65535",
		"10.0.0.1:0":           "from 1 to 65535",
		"10.0.0.1:65536":       "from 1 to 65535",
		"10.0.0.1:+1":          "from 1 to 65535",
		"10.0.0.1:080":         "from 1 to 65535",
		"10.0.0.1:2-1":         "from 1 to 65535",
		"10.0.0.1:1-2-3":       "from 1 to 65535",
		"10.0.0.1:1/udp/tcp":   "from 1 to 65535",
		"10.0.0.1:*":           "from 1 to 65535",
		"10.0.0.1/8:1":         "the range is written 10.0.0.0/8",
		"10.0.0.0/33:1":        "neither",
		"10.0.0:1":             "neither",
		"010.0.0.1:1":          "neither",
		"0x7f.1:1":             "neither",
		"2130706433:1":         "neither",
		":1":                   "neither",
		"*:1":                  "neither",
		"Example.com:1":        "neither",
		"a..b:1":               "neither",
		"-a.b:1":               "neither",
		"a b:1":                "neither",
		"[::1]:1":              "IPv4 only",
		"::1:1":                "IPv4 only",
		"::ffff:10.0.0.1:1":    "IPv4 only",
		"127.0.0.1:1":          "the guest itself",
		"169.254.169.254:80":   "metadata",
		"169.254.0.0/16:80":    "metadata",
		"224.0.0.1:1":          "no host's address",
		"255.255.255.255:1":    "no host's address",
		"0.0.0.0:1":            "no host's address",
		"0.0.0.0/8:1":          "no host's address",
		"10.0.0.1\n10.0.0.2:2": "neither",
	} {
		if r, err := ParseRule(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %+v, %v; want %q", text, r, err, why)
		}
	}
}

// FuzzParseRule looks for rules that open more than they say.
func FuzzParseRule(f *testing.F) {
	for _, seed := range []string{"nats", "dns", "10.0.0.0/8:5432", "db.example.com:1-2/udp", "169.254.169.254:80", "[::1]:1"} {
		f.Add(seed)
	}
	cfg, err := Config{Nameservers: []netip.Addr{netip.MustParseAddr("192.0.2.53")}}.complete()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRule(text)
		if err != nil {
			if len(err.Error()) > 800 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if r.String() != text {
			t.Errorf("%q became %q", text, r)
		}
		if r.kind == nameRule {
			if _, err := netip.ParseAddr(r.name); err == nil {
				t.Errorf("%q is taken for a name", text)
			}
			return // resolving is not for here
		}
		opened, err := r.open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range opened {
			if o.from == 0 || o.from > o.to || !o.net.Addr().Is4() || o.net != o.net.Masked() || o.net.Bits() > 0 && reachable(o.net.Addr()) != nil {
				t.Errorf("%q opens %+v", text, o)
			}
		}
	})
}

func TestOpenings(t *testing.T) {
	names := []netip.Addr{netip.MustParseAddr("192.0.2.53")}
	for _, test := range []struct {
		cfg  Config
		want []string // as "NET PORT-PORT PROTOCOL"
		err  string
	}{
		{cfg: Config{}, want: []string{"192.168.127.1/32 4222-4222 tcp", "192.0.2.53/32 53-53 udp", "192.0.2.53/32 53-53 tcp"}},
		{cfg: Config{Egress: []string{}}},
		{cfg: Config{Egress: []string{"nats"}, NATS: "10.1.2.3:4333"}, want: []string{"10.1.2.3/32 4333-4333 tcp"}},
		{cfg: Config{Egress: []string{"nats"}, Subnet: netip.MustParsePrefix("10.10.10.0/24")}, want: []string{"10.10.10.1/32 4222-4222 tcp"}},
		{cfg: Config{Egress: []string{"nats"}, NATS: "localhost:4222"}, err: "the guest itself"},
		{cfg: Config{Egress: []string{"localhost:4222"}}, err: "the guest itself"},
		{cfg: Config{Egress: []string{"nats"}, NATS: "10.1.2.3"}, err: "missing port"},
		{cfg: Config{Egress: []string{"nothing.invalid:1"}}, err: "find the address"},
	} {
		test.cfg.Nameservers = names
		cfg, err := test.cfg.complete()
		if err != nil {
			t.Fatal(err)
		}
		opened, err := cfg.openings(t.Context())
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%v: %v; want %q", test.cfg.Egress, err, test.err)
			}
			continue
		}
		var got []string
		for _, o := range opened {
			got = append(got, o.String())
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%v: %q, %v; want %q", test.cfg.Egress, got, err, test.want)
		}
	}
}

func TestHostNameservers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	text := "# one\nnameserver 127.0.0.53\nsearch example.com\nnameserver 192.0.2.1\n nameserver fe80::1%eth0\nnameserver\nnameserver 169.254.169.254\nnameserver 192.0.2.2 # two\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	if got := hostNameservers(path); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if got := hostNameservers(path + ".not"); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestForwards(t *testing.T) {
	for _, test := range []struct {
		cfg  Config
		want []string // as "GUEST TARGET"
		err  string
	}{
		{cfg: Config{}, want: []string{"192.168.127.1:4222 127.0.0.1:4222", "192.168.127.1:53 192.0.2.53:53"}},
		{cfg: Config{NATS: "10.1.2.3:4333", Egress: []string{"nats"}}, want: []string{"192.168.127.1:4222 10.1.2.3:4333"}},
		{cfg: Config{Egress: []string{"192.168.127.1:8000-8001", "192.168.127.1:8001"}}, want: []string{"192.168.127.1:8000 127.0.0.1:8000", "192.168.127.1:8001 127.0.0.1:8001"}},
		{cfg: Config{Egress: []string{"10.0.0.0/8:1"}}, err: "single addresses"},
		{cfg: Config{Egress: []string{"192.168.127.1:1/udp"}}, err: "TCP only"},
		{cfg: Config{Egress: []string{"10.0.0.1:1"}}, err: "only the address 192.168.127.1"},
		{cfg: Config{Egress: []string{"192.168.127.1:1-65535"}}, err: "at most 64"},
		{cfg: Config{NATS: "10.1.2.3:4222", Egress: []string{"nats", "192.168.127.1:4222"}}, err: "is to be both"},
	} {
		test.cfg.Nameservers = []netip.Addr{netip.MustParseAddr("192.0.2.53")}
		cfg, err := test.cfg.complete()
		if err != nil {
			t.Fatal(err)
		}
		all, err := cfg.forwards(t.Context())
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%v: %v; want %q", test.cfg.Egress, err, test.err)
			}
			continue
		}
		var got []string
		for _, f := range all {
			got = append(got, f.guest.String()+" "+f.target)
		}
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%v: %q, %v; want %q", test.cfg.Egress, got, err, test.want)
		}
	}
}

func TestUserNetQuotes(t *testing.T) {
	u, err := UserNet(t.Context(), Config{Program: "/opt/a, b's/nex", Egress: []string{"nats"}}, "n0")
	if err != nil {
		t.Fatal(err)
	}
	const want = `guestfwd=tcp:192.168.127.1:4222-cmd:'/opt/a,, b'\''s/nex' guest-forward 127.0.0.1:4222`
	if !strings.HasSuffix(u.Netdev, ","+want) {
		t.Errorf("%s; want %s at the end", u.Netdev, want)
	}
	if u.IP.String() != "192.168.127.2" || u.MAC.String() != "06:00:c0:a8:7f:02" || u.Nameservers != nil {
		t.Errorf("%+v", u)
	}
}
