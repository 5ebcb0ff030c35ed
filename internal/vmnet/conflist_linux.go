package vmnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/containernetworking/cni/libcni"

	"nex/internal/vmnet/tap"
)

// confDir is where operators configure networks.
const confDir = "/etc/cni/conf.d"

// conflist returns the network's configuration: the operator's, or else one of
// plugins ptp, host-local and our own.
func (c Config) conflist(dir string) (*libcni.NetworkConfigList, error) {
	path := filepath.Join(dir, c.NetworkName+".conflist")
	list, err := libcni.NetworkConfFromFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("network configuration %s: %w", path, err)
	case list.Name != c.NetworkName:
		return nil, fmt.Errorf("network configuration %s has the name %q", path, list.Name)
	default:
		return list, nil
	}
	type object = map[string]any
	ptp := object{
		"type": "ptp",
		"ipam": object{"type": "host-local", "subnet": c.Subnet.String(), "dataDir": c.leases()},
	}
	data, err := json.Marshal(object{"cniVersion": "1.0.0", "name": c.NetworkName, "plugins": []any{ptp, object{"type": tap.Name}}})
	if err != nil {
		return nil, err
	}
	return libcni.NetworkConfFromBytes(data)
}

// pluginDirs returns the directories of plugins, the last of which holds ours: a
// plugin of the operator's goes first.
func (c Config) pluginDirs() ([]string, error) {
	dirs := slices.Clone(c.BinPath)
	if dirs == nil {
		dirs = append(filepath.SplitList(os.Getenv("PATH")), "/opt/cni/bin", "/usr/lib/cni")
	}
	own := filepath.Join(c.StateDir, "cni", "bin")
	if err := os.MkdirAll(own, 0o700); err != nil {
		return nil, err
	}
	link := filepath.Join(own, tap.Name)
	if target, err := os.Readlink(link); err == nil && target == c.Program {
		return append(dirs, own), nil
	}
	os.Remove(link + ".new")
	if err := os.Symlink(c.Program, link+".new"); err != nil {
		return nil, err
	}
	if err := os.Rename(link+".new", link); err != nil {
		return nil, err
	}
	return append(dirs, own), nil
}

// pluginCache is the directory in which libcni keeps what plugins said.
func (c Config) pluginCache() string { return filepath.Join(c.StateDir, "cni", "cache") }

// leases is the directory in which the plugin host-local keeps who has which address,
// a file for each in one directory for each network.
func (c Config) leases() string { return filepath.Join(c.StateDir, "cni", "leases") }

// dropLeases removes the addresses that were taken by nobody: the plugin was killed
// before it had written who. No plugin may be at work.
func (c Config) dropLeases(network string) error {
	dir := filepath.Join(c.leases(), network)
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, f := range files {
		if _, no := netip.ParseAddr(f.Name()); no != nil {
			continue
		}
		if info, gone := f.Info(); gone == nil && info.Size() == 0 {
			err = errors.Join(err, os.Remove(filepath.Join(dir, f.Name())))
		}
	}
	return err
}
