package firecracker

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"nex"
	"nex/internal/guest"
	"nex/internal/machine/microvm"
	"nex/internal/nextest"
)

// wires is a network of nothing but taps, each in a namespace of its own.
type wires struct{ enabled atomic.Int32 }

func (w *wires) Attach(_ context.Context, id, _ string) (*microvm.NIC, error) {
	ns := w.netns(id)
	for _, args := range [][]string{{"netns", "add", ns}, {"-n", ns, "tuntap", "add", "tap0", "mode", "tap", "user", "0"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
	}
	return &microvm.NIC{
		NetNS: "/run/netns/" + ns, Tap: "tap0", MAC: net.HardwareAddr{6, 0, 172, 16, 0, 2},
		Addr: netip.MustParsePrefix("172.16.0.2/24"), Gateway: netip.MustParseAddr("172.16.0.1"), Nameservers: []netip.Addr{netip.MustParseAddr("172.16.0.1")},
	}, nil
}

// Close implements [microvm.Network].
func (w *wires) Close() error { return nil }

func (w *wires) Enable(string) error {
	w.enabled.Add(1)
	return nil
}

func (w *wires) Detach(_ context.Context, id, _ string) error {
	out, err := exec.Command("ip", "netns", "delete", w.netns(id)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func (w *wires) netns(id string) string { return fmt.Sprintf("nextest-%d-%s", os.Getpid(), id) }

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestMachineWithANetwork(t *testing.T) {
	nextest.Program(t, "ip")
	if os.Geteuid() != 0 {
		t.Skip("network namespaces take root")
	}
	eachKind(t, func(t *testing.T, l *Launcher) {
		w := &wires{}
		l.Network = w
		l.NetworkLimit = &RateLimiter{Bandwidth: &TokenBucket{OneTimeBurst: 1 << 20, RefillTime: 100, Size: 1 << 20}}
		g := take(t, fill(t, l, 0))
		owner := strings.TrimSpace(run(t, "ip", "netns", "exec", w.netns(g.ID()), "cat", "/sys/class/net/tap0/owner"))
		want := "0"
		if l.Jail != nil {
			want = fmt.Sprint(microvm.UserOf(g.ID()))
		}
		if owner != want {
			t.Errorf("the tap belongs to %s, want %s", owner, want)
		}
		if w.enabled.Load() != 0 {
			t.Error("the network is not cut before there is a service")
		}
		program, err := os.ReadFile(nextest.GuestProgram(t))
		if err != nil {
			t.Fatal(err)
		}
		lines := make(chan string, 100)
		deploy(t, g, guest.Deploy{Type: nex.Native, Argv: []string{"read", "/sys/class/net/eth0/address"}, Settings: nex.Settings{Resources: nex.Resources{MemoryMiB: 32}}}, program, guest.Sink{
			Log:    func(_ slog.Level, text string) { lines <- text },
			Exited: func(guest.Exit) {},
		})
		if line := nextest.Await(t, lines, "the service to see its network"); line != "read: <nil>" {
			t.Errorf("the service says %q", line)
		}
		if w.enabled.Load() != 1 {
			t.Error("the network was not enabled for a service")
		}
		id := g.ID()
		g.Release()
		if _, err := os.Stat("/run/netns/" + w.netns(id)); err == nil {
			t.Error("the network is left behind")
		}
	})
}
