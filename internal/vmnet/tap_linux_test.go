package vmnet

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/vishvananda/netlink"

	"nex/internal/vmnet/tap"
)

// TestPlugin has the plugins check what they made, before and after it is spoilt.
func TestPlugin(t *testing.T) {
	n := newNetwork(t, func(c *Config) { c.TapUID, c.TapGID = 1234, 5678 })
	nic, dir := attach(t, n, "one")
	r, err := readRecord(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.cni.CheckNetworkList(t.Context(), n.list, n.runtime(*r)); err != nil {
		t.Error(err)
	}
	err = Within(nic.NetNS, func() error {
		link, err := netlink.LinkByName(nic.Tap)
		if err != nil {
			return err
		}
		if made := link.(*netlink.Tuntap); made.Owner != 1234 || made.Group != 5678 {
			t.Errorf("the tap is of %d:%d", made.Owner, made.Group)
		}
		veth, err := netlink.LinkByName("veth0")
		if err != nil {
			return err
		}
		if mac := veth.Attrs().HardwareAddr.String(); mac != nic.MAC.String() {
			t.Errorf("the guest is %s, and what stands for it %s", nic.MAC, mac)
		}
		return netlink.LinkDel(link)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.cni.CheckNetworkList(t.Context(), n.list, n.runtime(*r)); err == nil {
		t.Error("a tap that is gone is not missed")
	}
}

// TestPluginRefuses calls the plugin with what it cannot do.
func TestPluginRefuses(t *testing.T) {
	newNetwork(t, nil) // says what these tests need
	path := filepath.Join(netnsDir, "plain")
	if err := makeNetNS(path); err != nil {
		t.Fatal(err)
	}
	defer removeNetNS(path)
	const conf = `{"cniVersion":"1.0.0","name":"fcnet","type":"tc-redirect-tap"`
	const result = conf + `,"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"veth0","sandbox":"` + netnsDir + `/plain"}],"ips":[`
	const ip = `{"interface":0,"address":"10.0.0.2/24","gateway":"10.0.0.1"}`
	for _, test := range []struct{ command, args, stdin, want string }{
		{"ADD", "", conf + `}`, "stands after a plugin"},
		{"ADD", "", result + `]}}`, "no address"},
		{"ADD", "", result + ip + "," + ip + `]}}`, "several addresses"},
		{"ADD", "", result + ip + `]}}`, "interface veth0 of the plugin before"},
		{"ADD", "", result + `{"interface":7,"address":"10.0.0.2/24"}]}}`, "no address"},
		{"ADD", "TC_REDIRECT_TAP_NAME=../tap", result + ip + `]}}`, "cannot be the name"},
		{"ADD", "TC_REDIRECT_TAP_NAME=abcdefghijklmnop", result + ip + `]}}`, "cannot be the name"},
		{"ADD", "TC_REDIRECT_TAP_UID=-1", result + ip + `]}}`, "TC_REDIRECT_TAP_UID"},
		{"ADD", "", `{`, "unexpected end"},
		{"CHECK", "", result + ip + `]}}`, "interface veth0"},
		{"DEL", "TC_REDIRECT_TAP_NAME=lo", conf + `}`, "lo is no tap"},
		{"DEL", "", conf + `}`, ""},
	} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args[0] = tap.Name
		cmd.Env = append(os.Environ(), "CNI_COMMAND="+test.command, "CNI_CONTAINERID=c", "CNI_NETNS="+path, "CNI_IFNAME=veth0", "CNI_PATH=/nowhere", "CNI_ARGS="+test.args)
		cmd.Stdin = strings.NewReader(test.stdin)
		var stdout bytes.Buffer
		cmd.Stdout = &stdout
		err := cmd.Run()
		if test.want == "" {
			if err != nil {
				t.Errorf("%s %s: %v, %s", test.command, test.args, err, stdout.String())
			}
			continue
		}
		var said struct{ Msg, Details string }
		if json.Unmarshal(stdout.Bytes(), &said) != nil || err == nil || !strings.Contains(said.Msg+said.Details, test.want) {
			t.Errorf("%s %s: %v, %s; want %q", test.command, test.args, err, stdout.String(), test.want)
		}
	}
}

func TestConflist(t *testing.T) {
	dir := t.TempDir()
	cfg, err := Config{StateDir: "/state"}.complete()
	if err != nil {
		t.Fatal(err)
	}
	own, err := cfg.conflist(dir)
	if err != nil || len(own.Plugins) != 2 || own.Plugins[0].Network.Type != "ptp" || own.Plugins[1].Network.Type != tap.Name || !bytes.Contains(own.Bytes, []byte("/state/cni/leases")) {
		t.Errorf("%+v, %v", own, err)
	}
	for text, want := range map[string]string{
		`{"cniVersion":"0.4.0","name":"fcnet","plugins":[{"type":"bridge"},{"type":"tc-redirect-tap"}]}`: "",
		`{"cniVersion":"0.4.0","name":"other","plugins":[{"type":"bridge"}]}`:                            `has the name "other"`,
		`{"cniVersion":"0.4.0","name":"fcnet"`:                                                           "fcnet.conflist",
		`{}`:                                                                                             "fcnet.conflist",
	} {
		if err := os.WriteFile(filepath.Join(dir, "fcnet.conflist"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := cfg.conflist(dir)
		if want == "" && (err != nil || list.Plugins[0].Network.Type != "bridge") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %+v, %v; want %q", text, list, err, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	n := newNetwork(t, nil)
	for want, change := range map[string]func(*Config){
		"is no name for a node":       func(c *Config) { c.Node = "a b" },
		"not of IPv4":                 func(c *Config) { c.Subnet = netip.MustParsePrefix("fd00::/64") },
		"containernetworking-plugins": func(c *Config) { c.BinPath = []string{"/nowhere"} },
		"there is no port":            func(c *Config) { c.Egress = []string{"x"} },
		"name servers: 127.0.0.1":     func(c *Config) { c.Nameservers = []netip.Addr{netip.MustParseAddr("127.0.0.1")} },
	} {
		cfg := n.cfg
		change(&cfg)
		if _, err := New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

// TestOperatorsNetwork takes a configuration as Nex 0.2.7 wrote it, but for the
// masquerading, which takes a program more.
func TestOperatorsNetwork(t *testing.T) {
	n := newNetwork(t, nil)
	list, err := libcni.NetworkConfFromBytes([]byte(`{"name":"fcnet","cniVersion":"0.4.0","plugins":[
		{"type":"ptp","ipam":{"type":"host-local","subnet":"192.168.127.0/24","dataDir":"` + t.TempDir() + `","resolvConf":"/etc/resolv.conf"}},
		{"type":"tc-redirect-tap"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	n.list = list
	nic, _ := attach(t, n, "one")
	g := boot(t, nic)
	if err := n.Enable(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	serve(t, ":4222")
	if err := g.dial("tcp", "192.168.127.1:4222", patience); err != nil {
		t.Error(err)
	}
	n.cfg.Subnet = netip.MustParsePrefix("10.10.10.0/24")
	if _, err := n.Attach(t.Context(), "two", t.TempDir()); err == nil || !strings.Contains(err.Error(), `make its configuration and "cni.subnet" agree`) {
		t.Error(err)
	}
}

// TestLeases drops those of a plugin that was killed before it had written whose
// they are, and no others.
func TestLeases(t *testing.T) {
	cfg := Config{StateDir: t.TempDir()}
	if err := cfg.dropLeases("fcnet"); err != nil {
		t.Error("where there are none:", err)
	}
	dir := filepath.Join(cfg.leases(), "fcnet")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"192.168.127.9": "", "192.168.127.10": "nex-a\r\nveth0", "lock": "", "last_reserved_ip.0": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := cfg.dropLeases("fcnet"); err != nil {
		t.Error(err)
	}
	left, err := filepath.Glob(dir + "/*")
	if want := []string{dir + "/192.168.127.10", dir + "/last_reserved_ip.0", dir + "/lock"}; err != nil || !slices.Equal(left, want) {
		t.Errorf("left: %q, %v", left, err)
	}
}
