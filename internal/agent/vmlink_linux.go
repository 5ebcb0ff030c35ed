package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nex/internal/guest"
)

// Where the kernel tells of its devices.
const (
	vsockDevice = "/dev/vsock"
	portsDir    = "/sys/class/virtio-ports"
	devicesDir  = "/dev"
)

// The times between two looks for a link; they double from the first to the last.
const (
	firstLook = time.Millisecond
	lastLook  = 50 * time.Millisecond
)

// MachineLink returns the link to the node outside of the virtual machine that this
// is: the vsock port of the host if there is such a device, else the
// virtio-serial port. Devices may still be appearing: it looks for them, and waits
// for the node to take up the link, until ctx ends.
func MachineLink(ctx context.Context) (net.Conn, error) {
	var p *stream
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		conn, vsockErr := dialHost()
		if vsockErr == nil {
			if p != nil {
				_ = p.Close() // nothing was sent
			}
			return conn, nil
		}
		portErr := errors.New("the node does not take up its end")
		if p == nil {
			p, portErr = openPort(portsDir, devicesDir)
		}
		if p != nil && connected(p.in) {
			return p, nil
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			if p != nil {
				_ = p.Close() // likewise
			}
			return nil, fmt.Errorf("no guest link in this machine (%w): vsock: %v; virtio-serial port %s: %v", ctx.Err(), vsockErr, guest.SerialPort, portErr)
		}
	}
}

// dialHost connects to the node over vsock.
func dialHost() (net.Conn, error) {
	dev, err := os.Open(vsockDevice)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	cid, err := unix.IoctlGetUint32(int(dev.Fd()), unix.IOCTL_VM_SOCKETS_GET_LOCAL_CID)
	if err != nil {
		return nil, fmt.Errorf("find own address: %w", err)
	}
	if cid <= unix.VMADDR_CID_HOST || cid == unix.VMADDR_CID_ANY {
		return nil, fmt.Errorf("address %d is no guest's", cid)
	}
	return dialVsock(unix.VMADDR_CID_HOST, guest.VsockPort)
}

// dialVsock connects to a port. The kernel gives up after 2 s.
func dialVsock(cid, number uint32) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make vsock socket: %w", err)
	}
	if err = unix.Connect(fd, &unix.SockaddrVM{CID: cid, Port: number}); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to port %d: %w", number, err), unix.Close(fd))
	}
	return newStream(fd, fd, "vsock")
}

// openPort opens the port for the link, one of those that ports (/sys/class/…)
// lists, with its device in devices. One process can have it open.
func openPort(ports, devices string) (*stream, error) {
	names, _ := filepath.Glob(filepath.Join(ports, "*", "name")) // the pattern is good
	for _, file := range names {
		name, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(name)) != guest.SerialPort {
			continue
		}
		about := filepath.Dir(file)
		path := filepath.Join(devices, filepath.Base(about))
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		if errors.Is(err, unix.ENOENT) {
			if err = makeDevice(path, filepath.Join(about, "dev")); err == nil {
				fd, err = unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
		return newStream(fd, fd, path)
	}
	return nil, errors.New("there is none")
}

// makeDevice makes a character device whose number is in a file as MAJOR:MINOR.
func makeDevice(path, numbers string) error {
	text, err := os.ReadFile(numbers)
	if err != nil {
		return err
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(string(text), "%d:%d", &major, &minor); err != nil {
		return fmt.Errorf("read %s: %w", numbers, err)
	}
	return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(major, minor)))
}

// connected reports whether the host has its end of a port open.
func connected(port int) bool {
	fds := []unix.PollFd{{Fd: int32(port)}}
	for {
		_, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) == 0
		}
	}
}
