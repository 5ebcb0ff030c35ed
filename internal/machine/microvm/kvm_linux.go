package microvm

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Requests of /dev/kvm; see the kernel's Documentation/virt/kvm/api.rst.
const (
	kvmGetAPIVersion = 0xae00
	kvmCreateVM      = 0xae01
	kvmAPIVersion    = 12
)

// KVM returns why there is no KVM that this process can make machines with, nil if
// there is. That guests run in them only a boot shows.
func KVM() error {
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/kvm: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	if _, err := os.Stat("/sys/module/kvm_pvm"); err == nil {
		return errors.New("/dev/kvm is that of PVM (kvm_pvm), under which the kernels of guests do not run")
	}
	version, err := unix.IoctlRetInt(fd, kvmGetAPIVersion)
	if err != nil {
		return fmt.Errorf("ask /dev/kvm for the version of its interface: %w", err)
	}
	if version != kvmAPIVersion {
		return fmt.Errorf("/dev/kvm has version %d of its interface, and %d is needed", version, kvmAPIVersion)
	}
	vm, err := unix.IoctlRetInt(fd, kvmCreateVM)
	if err != nil {
		return fmt.Errorf("/dev/kvm makes no machine: %w", err)
	}
	return unix.Close(vm) // which ends it
}
