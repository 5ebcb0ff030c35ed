package node_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nex"
	"nex/internal/machine/firecracker/fcemu"
	"nex/internal/nextest"
)

// hostVariable is set in a process that has a host of its own.
const hostVariable = "NODE_TEST_HOST"

// TestMicroVMsOfRoot: a node that is root runs a function and a service in microVMs, whose network is a tap
// behind the node's firewall. It is killed, and started again with a larger pool: all is back, and nothing
// of the first is left; after the second one's end nothing at all. Firecracker is its emulator, in
// front of QEMU, and a stand-in for its jailer.
func TestMicroVMsOfRoot(t *testing.T) {
	nextest.Root(t)
	if os.Getenv(hostVariable) == "" {
		onAHostOfItsOwn(t)
		return
	}
	furnish(t)
	image := nextest.GuestImage(t, nextest.StaticAgent(t))
	for name, m := range map[string]microVMs{
		"qemu":        {Kind: nex.SandboxQEMU, Network: "tap", Pool: 1},
		"firecracker": {Kind: nex.SandboxFirecracker, Pool: 1},
	} {
		t.Run(name, func(t *testing.T) {
			m.Image, m.Plugins = image, nextest.CNIPlugins(t)
			if m.Kind == nex.SandboxFirecracker {
				m.Programs = filepath.Dir(fcemu.Install(t, nextest.Program(t, "qemu-system-x86_64"), "").Firecracker)
			}
			surviveAKill(t, m)
		})
	}
}

// onAHostOfItsOwn runs this test in another process, in namespaces that stand for a
// host: this one's network and mounts are never touched.
func onAHostOfItsOwn(t *testing.T) {
	nextest.GuestImage(t, nextest.StaticAgent(t))
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestMicroVMsOfRoot$", "-test.v")
	cmd.Env = append(os.Environ(), nextest.ProgramsDir(), echoVariable+"="+echoService(t), hostVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if output, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(output), "--- PASS: TestMicroVMsOfRoot/firecracker") {
		t.Errorf("%v\n%s", err, output)
	}
}

// furnish makes a host of the namespaces this process is in.
func furnish(t *testing.T) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	err = errors.Join(err, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("tmpfs", "/run", "tmpfs", 0, ""))
	if err != nil {
		t.Fatal("a host for the test: ", err)
	}
}

func surviveAKill(t *testing.T, m microVMs) {
	before := hostState(t)
	srv := everywhere(t)
	port := strconv.Itoa(srv.Addr().(*net.TCPAddr).Port)
	m.NATS = "192.168.127.1:" + port
	r := newClientRig(t, srv)
	url := "nats://127.0.0.1:" + port
	r.node, r.end = runNode(t, url, r.dir, m.settings())
	r.end() // it has an id now
	if after := hostState(t); after != before {
		t.Errorf("before:\n%s\nafter a node that ran nothing:\n%s", before, after)
	}
	start := func() (kill func(), cmd *exec.Cmd) {
		cmd = exec.Command(os.Args[0])
		startCommand(t, nodeSpec{URL: url, Dir: r.dir, MicroVMs: &m}, cmd)
		return func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }, cmd
	}
	kill, _ := start()
	r.mustDeployJS(t, "echo", "js.echo", echo)
	w := r.upload(t, "svc", nex.Native, must(os.ReadFile(echoService(t)))(t))
	w.Environment = map[string]string{"NATS_URL": "nats://" + m.NATS}
	w.Settings.Ready, w.Settings.Restart = nex.Ready{Subject: "svc.echo"}, nex.Restart{Policy: nex.RestartAlways}
	if _, err := r.deploy(t, w); err != nil {
		t.Fatal(err)
	}
	subjects := []string{"js.echo", "svc.echo"}
	r.awaitAnswers(t, subjects)
	info, err := r.Info(t.Context(), r.node.NodeID)
	if err != nil || len(info.Machines) != 2 {
		t.Errorf("info %+v, %v", info, err)
	}
	kill()
	if during := hostState(t); during == before {
		t.Error("the node that was killed left nothing to be swept")
	}
	m.Pool = 2
	_, cmd := start()
	r.awaitAnswers(t, subjects)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the node ended with %v", err)
	}
	if after := hostState(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	for _, dir := range []string{"machines", "records", "cni/leases/fcnet"} {
		left, _ := filepath.Glob(filepath.Join(r.dir, dir, "[0-9a-z]*"))
		for _, path := range left {
			if name := filepath.Base(path); name != "lock" && !strings.HasPrefix(name, "last_reserved_ip") {
				t.Errorf("left behind: %s", path)
			}
		}
	}
}

// everywhere runs a NATS server that guests can reach, too.
func everywhere(t *testing.T) *server.Server {
	t.Helper()
	srv, err := server.NewServer(&server.Options{Host: "0.0.0.0", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(nextest.Patience) {
		t.Fatal("the NATS server does not start")
	}
	return srv
}

// hostState lists what nodes may leave on the host: interfaces, tables of the
// firewall, network namespaces and mounts.
func hostState(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	links, err := netlink.LinkList()
	for deadline := time.Now().Add(nextest.Patience); err != nil && time.Now().Before(deadline); { // interrupted by a change
		links, err = netlink.LinkList()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		b.WriteString("interface " + l.Attrs().Name + "\n")
	}
	tables, err := (&nftables.Conn{}).ListTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		b.WriteString("table " + table.Name + "\n")
	}
	namespaces, _ := filepath.Glob("/run/netns/*")
	b.WriteString(strings.Join(namespaces, "\n"))
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	b.Write(mounts)
	return b.String()
}
