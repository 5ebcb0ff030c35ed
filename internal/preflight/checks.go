package preflight

import (
	"os"
	"slices"

	"nex"
)

// Groups of checks, in the words of the guide where it has them.
const (
	groupHost     = "Host"
	groupPlugins  = "Required CNI Plugins"
	groupBinaries = "Required binaries"
	groupNetwork  = "CNI configuration requirements"
	groupFiles    = "User provided files"
	groupNode     = "Node"
	groupNATS     = "NATS"
)

// item names what can be installed; it is the file's name where it has one.
type item string

const (
	itemHostLocal   item = "host-local"
	itemPtp         item = "ptp"
	itemFirecracker item = "firecracker"
	itemJailer      item = "jailer"
	itemConflist    item = "conflist"
	itemKernel      item = "vmlinux"
	itemInitramfs   item = "initramfs"
	itemRootfs      item = "rootfs.ext4"
	itemAgent       item = "nex-agent"
)

// checks are all checks there are, those that this node does not need among them.
func (p *probe) checks() []check {
	root := os.Geteuid() == 0
	accel := p.Settings.QEMU.Accel
	vm := p.vmm == nex.SandboxFirecracker || p.vmm == nex.SandboxQEMU
	fc := p.vmm == nex.SandboxFirecracker
	network := p.Settings.QEMU.Network // QEMU has one of its own for those who may make no other
	tap := fc && root || p.vmm == nex.SandboxQEMU && network == "tap"
	cni := tap || p.vmm == nex.SandboxQEMU && root && network == "auto"
	forOS := p.vmm == nex.SandboxOS
	own := p.ownServer()
	var all []check
	add := func(c ...check) { all = append(all, c...) }
	add(
		check{groupHost, "operating system", "the sandbox of a node is made of what Linux has", "", true, p.vmm != nex.SandboxNone, (*probe).system},
		check{groupHost, "architecture", "microVMs boot a kernel for amd64, the OS sandbox knows the system calls of amd64 and arm64", "", true, p.vmm != nex.SandboxNone, (*probe).architecture},
		check{groupHost, "privileges", "a node as root can give machines networks and limits", "", fc || p.vmm == nex.SandboxQEMU && network == "tap", vm || forOS, (*probe).privileges},
		check{groupHost, "KVM", "Firecracker runs machines by it, and QEMU runs them much faster", "", fc || accel == "kvm", fc || p.vmm == nex.SandboxQEMU && accel != "tcg", (*probe).virtualization},
		check{groupHost, "cgroups", "they keep the limits of services: cpus, memory_mib and pids", "", false, true, (*probe).cgroups},
		check{groupHost, "namespaces of the OS sandbox", "the OS sandbox is made of them", "", false, forOS, (*probe).sandbox},
		check{groupHost, "nftables", "the firewall around machines is made of it", "", false, cni, (*probe).nftables},
		check{groupHost, "IP forwarding", "what machines send beyond this host is forwarded by it", "", false, cni, (*probe).forwarding},
		check{groupHost, "disk space", "artifacts and machines are kept in the state directory", "", false, true, (*probe).disk},
		check{groupHost, "file limit", "each machine and each connection takes open files of the node", "", false, true, (*probe).files},
		check{groupHost, "clock", "claims that sign requests expire by it", "", false, true, (*probe).clock},
	)
	for _, name := range p.plugins() {
		i := item(name)
		if !slices.Contains(defaultPlugins, name) {
			i = ""
		}
		add(check{groupPlugins, name + " CNI plugin", "it is part of the network of microVMs", i, tap, cni, plugin(name)})
	}
	add(
		check{groupPlugins, "tc-redirect-tap CNI plugin", "it connects a microVM to its network", "", false, cni, (*probe).tap},
		check{groupBinaries, "Firecracker VM binary", "it runs microVMs", itemFirecracker, true, fc, (*probe).firecracker},
		check{groupBinaries, "Firecracker jailer binary", "it starts Firecracker as another user in a directory of its own", itemJailer, true, fc && p.jailed(), (*probe).jailer},
		check{groupBinaries, "QEMU VM binary", "it runs microVMs where Firecracker does not", "", true, p.vmm == nex.SandboxQEMU, (*probe).qemu},
		check{groupBinaries, "Nex-agent binary", "it runs workloads", itemAgent, true, !vm, (*probe).agent},
		check{groupNetwork, "CNI Configuration", "it says what the network of microVMs is", itemConflist, true, cni, (*probe).conflist},
		check{groupFiles, "VMLinux Kernel", "microVMs boot it", itemKernel, true, vm, (*probe).kernel},
		check{groupFiles, "Initial RAM filesystem", "it has the kernel's modules, and the first program of microVMs", itemInitramfs, true, vm, (*probe).initramfs},
		check{groupFiles, "Root Filesystem Template", "it has the agent, which runs workloads in microVMs", itemRootfs, true, vm, (*probe).rootfs},
		check{groupNode, "state directory", "a node keeps its identity there, and what it has promised to run", "", true, true, (*probe).state},
		check{groupNode, "port of the NATS server", `the node runs a NATS server of its own ("public_nats_server")`, "", false, p.Settings.PublicServer != nil, (*probe).port},
		check{groupNATS, "NATS server", "nodes are spoken to over NATS", "", false, !own, (*probe).reachable},
		check{groupNATS, "JetStream", "artifacts are uploaded to its Object Store", "", false, !own, (*probe).jetStream},
		check{groupNATS, "control subjects", "requests to the node come on them", "", false, !own, (*probe).permissions},
	)
	return all
}

// ownServer reports whether the node joins the server that it runs itself.
func (p *probe) ownServer() bool { return p.Settings.PublicServer != nil && p.Server == "" }
