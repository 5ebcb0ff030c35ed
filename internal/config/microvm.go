package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// CNI says how microVMs are connected.
type CNI struct {
	BinPath     []string // directories of the plugins; none for the usual ones
	ConfDir     string   // directory of the configurations
	Network     string   // name of the configuration
	Interface   string   // name of the interface in a machine's network namespace
	Subnet      netip.Prefix
	Nameservers []netip.Addr // none for the host's
}

// Conflist is the path of the network's configuration.
func (c CNI) Conflist() string { return filepath.Join(c.ConfDir, c.Network+".conflist") }

var (
	networkName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$`) // as CNI has it
	deviceName  = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,15}$`)
)

func (c CNI) validate() error {
	switch {
	case !networkName.MatchString(c.Network):
		return fmt.Errorf(`"cni.network_name" cannot be %q: letters, digits, and . _ - between them`, c.Network)
	case !deviceName.MatchString(c.Interface) || c.Interface == "." || c.Interface == "..":
		return fmt.Errorf(`"cni.interface_name" cannot be %q: at most 15 letters, digits, and . _ -`, c.Interface)
	case !c.Subnet.Addr().Is4() || c.Subnet.Bits() > 30:
		return fmt.Errorf(`"cni.subnet" cannot be %s: name a network of IPv4 with room for two hosts, as 192.168.127.0/24`, c.Subnet)
	}
	return nil
}

// ProgramDirs are the directories that the programs of microVMs are looked for
// in, given the node's state directory. The first is where they are installed.
func (c Config) ProgramDirs(state string) []string {
	if len(c.BinPath) > 0 {
		return c.BinPath
	}
	dirs := []string{filepath.Join(state, "bin")}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if filepath.IsAbs(dir) && !slices.Contains(dirs, dir) { // not where the node happens to be
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// PluginDirs are the directories of CNI plugins, likewise.
func (c Config) PluginDirs(state string) []string {
	if len(c.CNI.BinPath) > 0 {
		return c.CNI.BinPath
	}
	return []string{filepath.Join(state, "bin"), "/opt/cni/bin", "/usr/lib/cni"}
}

// Image are the paths of what microVMs boot, given the node's state directory.
func (c Config) Image(state string) (kernel, initramfs, rootfs string) {
	dir := cmp.Or(c.ResourceDir, filepath.Join(state, "images", "default"))
	return cmp.Or(c.Kernel, filepath.Join(dir, "vmlinux")),
		cmp.Or(c.Initramfs, filepath.Join(dir, "initramfs")),
		cmp.Or(c.RootFS, filepath.Join(dir, "rootfs.ext4"))
}
