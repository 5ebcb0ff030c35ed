package vmnet

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"nex/internal/nextest"
)

// emulate runs a QEMU without a machine, of which only the network is there, and
// returns the other end of the cable: a read or a write is a frame.
func emulate(t *testing.T, netdev string) *os.File {
	t.Helper()
	qemu := nextest.Program(t, "qemu-system-x86_64")
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "cable"), os.NewFile(uintptr(fds[1]), "cable")
	defer far.Close()
	cmd := exec.Command(qemu, "-M", "none", "-nodefaults", "-nographic", "-no-user-config", "-monitor", "none",
		"-netdev", netdev, "-netdev", "hubport,id=h0,hubid=0,netdev=n0",
		"-netdev", "dgram,id=n1,local.type=fd,local.str=3", "-netdev", "hubport,id=h1,hubid=0,netdev=n1")
	cmd.ExtraFiles = []*os.File{far}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		near.Close()
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		if t.Failed() {
			t.Log("QEMU said:", said.String())
		}
	})
	return near
}

// TestUserNetReach connects from a guest in QEMU's own network.
func TestUserNetReach(t *testing.T) {
	nextest.Root(t)
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	give(t, "lo", "10.77.0.1/32")
	u, err := UserNet(t.Context(), Config{Program: program, Nameservers: []netip.Addr{netip.MustParseAddr("10.77.0.1")}}, "n0")
	if err != nil {
		t.Fatal(err)
	}
	resolve(t, "10.77.0.1")
	for _, port := range []string{":4222", ":53", ":9999"} {
		serve(t, port)
	}
	const name, host = "192.168.127.253:53", "192.168.127.254:9999" // QEMU's own addresses
	reach := func(t *testing.T, g *booted, network, address string, reached bool) {
		t.Helper()
		wait := briefly
		if reached {
			wait = patience
		}
		if err := g.dial(network, address, wait); (err == nil) != reached {
			t.Errorf("%s %s: %v", network, address, err)
		}
	}
	card := &NIC{MAC: u.MAC, IP: u.IP, Gateway: u.Gateway, Mask: u.Mask}
	t.Run("restricted", func(t *testing.T) {
		g := plug(t, "user", emulate(t, u.Netdev), card)
		reach(t, g, "tcp", "192.168.127.1:4222", true)
		reach(t, g, "tcp", "192.168.127.1:53", true)
		reach(t, g, "udp", "192.168.127.1:53", false)
		reach(t, g, "tcp", "192.168.127.1:9999", false)
		reach(t, g, "udp", name, false)
		reach(t, g, "tcp", name, false)
		reach(t, g, "tcp", host, false)
		reach(t, g, "udp", host, false)
		reach(t, g, "tcp", "10.77.0.1:9999", false)
		reach(t, g, "udp", "10.77.0.1:9999", false)
		many(t, g, "192.168.127.1:4222", 20)
	})
	// What the above does not reach is there to be reached.
	t.Run("unrestricted", func(t *testing.T) {
		g := plug(t, "user", emulate(t, strings.Replace(u.Netdev, "restrict=on", "restrict=off", 1)), card)
		reach(t, g, "udp", name, true)
		reach(t, g, "tcp", host, true)
		reach(t, g, "tcp", "10.77.0.1:9999", true)
		reach(t, g, "udp", "10.77.0.1:9999", true)
	})
}

// resolve makes address the host's name server, for the mounts of this process.
func resolve(t *testing.T, address string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver "+address+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(file, resolvConf, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(resolvConf, 0); err != nil {
			t.Error(err)
		}
	})
}

// many connects several times at once.
func many(t *testing.T, g *booted, address string, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if err := g.dial("tcp", address, patience); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
