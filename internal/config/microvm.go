package config

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"

	"nex/internal/vmnet"
)

// confDir is where operators configure networks.
const confDir = "/etc/cni/conf.d"

// Conflist is the path of the network's configuration.
func (c CNI) Conflist() string {
	return filepath.Join(cmp.Or(c.ConfDir, confDir), c.Name()+".conflist")
}

// Name is the name of the network.
func (c CNI) Name() string { return cmp.Or(c.NetworkName, vmnet.DefaultNetwork) }

// ProgramDirs are the directories that the programs of microVMs are looked for
// in, given the node's state directory. The first is where they are installed.
func (c Config) ProgramDirs(state string) []string {
	return andPath(c.BinPath, state)
}

// andPath returns directories, or else bin in the state directory, and those of PATH.
func andPath(first []string, state string) []string {
	dirs := slices.Clone(first)
	if len(dirs) == 0 {
		dirs = []string{filepath.Join(state, "bin")}
	}
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
	return append(andPath(nil, state), "/opt/cni/bin", "/usr/lib/cni")
}

// Image are the paths of what microVMs boot, given the node's state directory.
func (c Config) Image(state string) (kernel, initramfs, rootfs string) {
	dir := cmp.Or(c.ResourceDir, filepath.Join(state, "images", "default"))
	return cmp.Or(c.Kernel, filepath.Join(dir, "vmlinux")),
		cmp.Or(c.Initramfs, filepath.Join(dir, "initramfs")),
		cmp.Or(c.RootFS, filepath.Join(dir, "rootfs.ext4"))
}
