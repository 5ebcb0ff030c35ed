package microvm

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// CommandLine is what a kernel is told. Its console is the first serial port. nic
// is nil for none. Where the processor is emulated the kernel is told the speed of
// its clock, since it would measure it against another that is emulated too, for
// ever if the host is busy; it looks for no devices that there cannot be, and does
// without guards against flaws of real processors, which cost time and guard
// nothing there.
//
// "ip=" is read by the agent, not by the kernel; see nfsroot.txt of Linux for its
// fields. "nomodule" must never be here: it keeps drivers in the initramfs from
// being loaded.
func CommandLine(nic *NIC, emulated bool) (string, error) {
	words := []string{"nex.guest=1", "quiet", "console=ttyS0", "reboot=t", "panic=-1"}
	if emulated {
		khz, err := clockKHz("/proc/cpuinfo")
		if err != nil {
			return "", err
		}
		words = append(words, "tsc_early_khz="+strconv.Itoa(khz), "tsc=reliable", "mitigations=off", "pci=off", "8250.nr_uarts=1")
	}
	if nic != nil {
		mask := net.IP(net.CIDRMask(nic.Addr.Bits(), nic.Addr.Addr().BitLen()))
		words = append(words, fmt.Sprintf("ip=%s::%s:%s::eth0:off", nic.Addr.Addr(), nic.Gateway, mask))
		if len(nic.Nameservers) > 0 {
			words = append(words, "nex.dns="+join(nic.Nameservers))
			if nic.DNSOverTCP {
				words = append(words, "nex.dns.tcp=1")
			}
		}
	}
	return strings.Join(words, " "), nil
}

func join(addrs []netip.Addr) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return strings.Join(words, ",")
}

// clockKHz is the speed of this processor's time stamp counter as far as the
// kernel tells it in /proc/cpuinfo.
func clockKHz(path string) (int, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(name) != "cpu MHz" {
			continue
		}
		mhz, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil || mhz <= 0 {
			break
		}
		return int(mhz * 1000), nil
	}
	return 0, fmt.Errorf("%s does not tell the speed of the processor", path)
}
