package qemu

import (
	"encoding/json"
	"fmt"

	"nex/internal/machine/microvm"
)

// The descriptors that QEMU inherits. That of its network is a tap, or the program
// that forwards connections.
const (
	linkFD, monitorFD, netFD = 3, 4, 5
)

// portName is the name of the virtio-serial port that the guest link is.
const portName = "nex.link"

// codeMiB is how much memory QEMU takes for the code that it translates, with
// emulation. Its default is a fifth of the host's memory.
const codeMiB = 32

// arguments are QEMU's for a machine with the given disk of its own. nic is nil
// for none, and user 0 for the node's own. QEMU may do nothing but what a machine needs: it gains no privileges,
// reads no configuration of its own, and starts programs only to forward
// connections.
func (l *Launcher) arguments(id, disk string, nic *microvm.NIC, user int) ([]string, error) {
	line, err := microvm.CommandLine(nic, l.Accel == TCG)
	if err != nil {
		return nil, err
	}
	accel, cpu := "kvm", "host"
	if l.Accel == TCG {
		// The processor with all that can be emulated: the kernel would wait long for
		// randomness with one that has none.
		accel, cpu = fmt.Sprintf("tcg,tb-size=%d", codeMiB), "max"
	}
	args := []string{
		"-name", id,
		"-M", "microvm,mem-merge=off,dump-guest-core=off",
		"-accel", accel, "-cpu", cpu,
		"-m", fmt.Sprintf("%dM", l.MemoryMiB), "-smp", fmt.Sprint(l.CPUs),
		"-global", "virtio-mmio.force-legacy=false",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-sandbox", l.filter(user),
		"-kernel", l.Kernel, "-initrd", l.Initramfs, "-append", line,
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=link,fd=%d", linkFD),
		"-device", "virtio-serial-device,max_ports=2", "-device", "virtserialport,chardev=link,name=" + portName,
		"-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", monitorFD), "-mon", "chardev=monitor,mode=control",
		"-device", "virtio-rng-device",
	}
	for _, d := range []blockdev{
		{Name: "base", ReadOnly: true, File: file{Driver: "file", Name: l.RootFS}},
		{Name: "own", Discard: "unmap", File: file{Driver: "file", Name: disk, Discard: "unmap"}, Cache: cache{NoFlush: true}},
	} {
		d.Driver = "raw"
		text, err := json.Marshal(d)
		if err != nil {
			return nil, err
		}
		args = append(args, "-blockdev", string(text), "-device", "virtio-blk-device,drive="+d.Name)
	}
	if user != 0 {
		args = append(args, "-runas", fmt.Sprintf("%d:%d", user, user)) // once all files are open
	}
	if nic == nil {
		return args, nil
	}
	netdev := fmt.Sprintf("tap,id=%s,fd=%d", NetID, netFD)
	if l.UserNet != nil {
		netdev = l.UserNet.Netdev
		args = append(args, "-S") // until its network is cut
	}
	// Without status the guest does not wait for its card, and what it would be
	// told by that is nothing that it needs.
	return append(args, "-netdev", netdev,
		"-device", fmt.Sprintf("virtio-net-device,netdev=%s,status=off,guest_announce=off,mac=%s", NetID, nic.MAC)), nil
}

// filter says what system calls QEMU may not do. With a network of its own it
// starts programs, which get its filter: each begins a session of its own, which
// QEMU counts among what elevates privileges, and asks for the processors that it
// may use. What does either in vain is killed. With any filter no program that is
// started gains privileges: the kernel's no_new_privs is set.
func (l *Launcher) filter(user int) string {
	if l.UserNet != nil {
		return "on,obsolete=deny,elevateprivileges=allow,resourcecontrol=allow,spawn=allow"
	}
	if user != 0 {
		return "on,obsolete=deny,elevateprivileges=allow,resourcecontrol=deny,spawn=deny" // to become its user, who gains nothing by that
	}
	return "on,obsolete=deny,elevateprivileges=deny,resourcecontrol=deny,spawn=deny"
}

// blockdev is a disk as QEMU's block layer has it; see BlockdevOptions in the
// reference of QMP.
type blockdev struct {
	Driver   string `json:"driver"`
	Name     string `json:"node-name"`
	ReadOnly bool   `json:"read-only"`
	Discard  string `json:"discard,omitempty"`
	Cache    cache  `json:"cache"`
	File     file   `json:"file"`
}

// cache says what becomes of the guest's flushes: those to a disk that is thrown
// away with its machine do not matter.
type cache struct {
	NoFlush bool `json:"no-flush"`
}

type file struct {
	Driver  string `json:"driver"`
	Name    string `json:"filename"`
	Discard string `json:"discard,omitempty"`
}
