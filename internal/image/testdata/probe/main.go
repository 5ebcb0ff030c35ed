// Command probe is what a test has guests run in the place of the agent: it says
// what it finds, and ends the machine.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) > 1 { // --version, as images ask it when they are built
		fmt.Println("probe")
		return
	}
	fmt.Printf("probe: process %d, program %s\n", os.Getpid(), os.Args[0])
	mounts, err := os.ReadFile("/proc/mounts")
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		fmt.Printf("probe: mount %s %s\n", fields[1], fields[2])
	}
	fmt.Println("probe: mounts read", err)
	fmt.Println("probe: written", os.WriteFile("/etc/written", []byte("x"), 0o600))
	_, err = os.Stat("/modules")
	fmt.Println("probe: initramfs is gone", os.IsNotExist(err))
	ports, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	for _, port := range ports {
		name, _ := os.ReadFile(port)
		fmt.Printf("probe: port %s", name)
	}
	fmt.Println("probe: ports read", err)
	unix.Sync()
	fmt.Println("probe: end", unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
}
