package preflight

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/containernetworking/cni/libcni"

	"nex/internal/config"
	"nex/internal/vmnet"
	"nex/internal/vmnet/tap"
)

// conflist is the configuration of a CNI network, see the CNI specification
// ("Network configuration format"). Keys that are not ours are left alone: this
// is read of files of others.
type conflist struct {
	Name       string      `json:"name"`
	CNIVersion string      `json:"cniVersion"`
	Plugins    []cniPlugin `json:"plugins"`
}

type cniPlugin struct {
	Type   string   `json:"type"`
	IPMasq bool     `json:"ipMasq,omitempty"`
	DNS    *cniDNS  `json:"dns,omitempty"`
	IPAM   *cniIPAM `json:"ipam,omitempty"`
}

type cniDNS struct {
	Nameservers []string `json:"nameservers"`
}

type cniIPAM struct {
	Type    string `json:"type"`
	Subnet  string `json:"subnet"`
	DataDir string `json:"dataDir,omitempty"`
}

// newConflist makes the configuration of the network that microVMs are in: what
// a node does without one, to be changed by its operator. Addresses are leased
// below the state directory. The firewall of the node hides those of machines,
// and so the plugin need not ("ipMasq").
func newConflist(c config.CNI, stateDir string) []byte {
	subnet := vmnet.DefaultSubnet
	if c.Subnet.IsValid() {
		subnet = c.Subnet.String()
	}
	ptp := cniPlugin{Type: string(itemPtp), IPAM: &cniIPAM{Type: string(itemHostLocal), Subnet: subnet, DataDir: filepath.Join(stateDir, "cni", "leases")}}
	if len(c.Nameservers) > 0 {
		ptp.DNS = &cniDNS{}
		for _, n := range c.Nameservers {
			ptp.DNS.Nameservers = append(ptp.DNS.Nameservers, n.String())
		}
	}
	data, err := json.MarshalIndent(conflist{Name: c.Name(), CNIVersion: "1.0.0", Plugins: []cniPlugin{ptp, {Type: tap.Name}}}, "", "  ")
	if err != nil {
		panic(err) // there is nothing in it that JSON does not have
	}
	return append(data, '\n')
}

// maxConflist is more than any configuration takes, in bytes.
const maxConflist = 1 << 20

// readConflist reads a configuration as the network of machines does.
func readConflist(path string) (conflist, error) {
	data, err := readBounded(path, maxConflist)
	if err != nil {
		return conflist{}, err
	}
	if _, err := libcni.NetworkConfFromFile(path); err != nil {
		return conflist{}, err
	}
	return parseConflist(data)
}

// defaultPlugins are those of the configuration that a node has without one, but
// for nex's own.
var defaultPlugins = []string{string(itemHostLocal), string(itemPtp)}

// plugins are the plugins that the network of machines is made of, but for nex's own.
func (p *probe) plugins() (names []string) {
	c, err := readConflist(p.Settings.CNI.Conflist())
	if err != nil {
		return defaultPlugins
	}
	for _, plugin := range c.Plugins {
		if plugin.IPAM != nil && plugin.IPAM.Type != "" {
			names = append(names, plugin.IPAM.Type)
		}
		names = append(names, plugin.Type)
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return name == tap.Name })
}

func parseConflist(data []byte) (c conflist, err error) {
	if err := json.Unmarshal(data, &c); err != nil {
		return conflist{}, err
	}
	if len(c.Plugins) == 0 {
		return conflist{}, errors.New("it has no plugins")
	}
	if last := c.Plugins[len(c.Plugins)-1].Type; last != tap.Name {
		return conflist{}, fmt.Errorf("its last plugin is %.40q, and must be %s: without it a microVM is not connected", last, tap.Name)
	}
	return c, nil
}

// masquerades reports whether a plugin hides the addresses of machines behind
// the host's.
func (c conflist) masquerades() bool {
	for _, p := range c.Plugins {
		if p.IPMasq {
			return true
		}
	}
	return false
}

func (p *probe) conflist(context.Context) Finding {
	f := p.conflistFile().at(p.Settings.CNI.Conflist())
	f.Searched = []string{filepath.Dir(p.Settings.CNI.Conflist())}
	return f
}

func (p *probe) conflistFile() Finding {
	path := p.Settings.CNI.Conflist()
	c, err := readConflist(path)
	const fix = "write it as the CNI specification has it, with the plugins ptp and tc-redirect-tap, or remove it, and the node does with one of its own"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return doubtful("there is no "+path+", and the node does with one of its own", "to change the network, have nex node preflight --yes write it, and edit it")
	case err != nil:
		return missing(path+": "+err.Error(), fix)
	case c.Name != p.Settings.CNI.Name():
		return missing(fmt.Sprintf("%s is for the network %.60q, and \"cni.network_name\" is %q", path, c.Name, p.Settings.CNI.Name()), "give both one name")
	}
	return found(path, "")
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, limit)
	}
	return os.ReadFile(path)
}
