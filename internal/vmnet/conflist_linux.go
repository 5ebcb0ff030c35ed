package vmnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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
		"ipam": object{"type": "host-local", "subnet": c.Subnet.String(), "dataDir": filepath.Join(c.StateDir, "cni", "leases")},
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
