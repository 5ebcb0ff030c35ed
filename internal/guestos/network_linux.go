package guestos

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// deviceTime is how long a device may take to appear.
	deviceTime = 2 * time.Second
	look       = 5 * time.Millisecond // between two looks for it
)

// up gives the device its address and the way out.
func (n *Network) up() error {
	if err := awaitDevice(n.Device, deviceTime); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	mask := net.CIDRMask(n.Address.Bits(), 32)
	for _, set := range []struct {
		what    string
		request uint
		address []byte
	}{
		{"address", unix.SIOCSIFADDR, n.Address.Addr().AsSlice()},
		{"mask", unix.SIOCSIFNETMASK, mask},
	} {
		ifr, err := unix.NewIfreq(n.Device)
		if err != nil {
			return err
		}
		if err := ifr.SetInet4Addr(set.address); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, set.request, ifr); err != nil {
			return fmt.Errorf("set %s of %s: %w", set.what, n.Device, err)
		}
	}
	if err := linkUp(n.Device); err != nil {
		return fmt.Errorf("bring up %s: %w", n.Device, err)
	}
	if n.Gateway.IsValid() {
		if err := addGateway(fd, n.Gateway); err != nil {
			return fmt.Errorf("add route by %s: %w", n.Gateway, err)
		}
	}
	return nil
}

// awaitDevice waits until there is a device of that name.
func awaitDevice(name string, most time.Duration) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	late := time.NewTimer(most)
	defer late.Stop()
	for {
		_, err := net.InterfaceByName(name)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-late.C:
			return fmt.Errorf("no device %s after %s: %w", name, most, err)
		}
	}
}

// linkUp switches a device on.
func linkUp(device string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(device)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return err
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// route is struct rtentry of <linux/route.h>.
type route struct {
	_                         uintptr
	destination, gateway, net [16]byte // struct sockaddr
	flags                     uint16
	_                         int16
	_                         uintptr
	_                         uintptr
	metric                    int16
	device                    uintptr
	mtu, window               uintptr
	irtt                      uint16
}

// addGateway adds the route to everywhere.
func addGateway(fd int, gateway netip.Addr) error {
	r := route{flags: unix.RTF_UP | unix.RTF_GATEWAY}
	for _, a := range []*[16]byte{&r.destination, &r.gateway, &r.net} {
		binary.NativeEndian.PutUint16(a[:], unix.AF_INET)
	}
	copy(r.gateway[4:], gateway.AsSlice()) // behind family and port
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCADDRT, uintptr(unsafe.Pointer(&r)))
	if errno != 0 && !errors.Is(errno, unix.EEXIST) {
		return errno
	}
	return nil
}
