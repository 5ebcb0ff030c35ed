package node_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"nex"
	"nex/internal/nextest"
)

// echoVariable names the program of the service to a test in another process.
const echoVariable = "NEX_TEST_ECHO"

// echoService returns the path of the example of a service.
func echoService(t *testing.T) string {
	t.Helper()
	if path := os.Getenv(echoVariable); path != "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "echoservice")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../../examples/native/echoservice")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the service: %v\n%s", err, out)
	}
	return path
}

// TestUserNetwork: a service in a microVM of QEMU reaches NATS over QEMU's own
// network and answers there, whether the node is root or not. What forwards its
// connections ends with the machine.
func TestUserNetwork(t *testing.T) {
	nextest.Program(t, "qemu-system-x86_64")
	image, service := nextest.GuestImage(t, nextest.StaticAgent(t)), echoService(t)
	t.Run("this user", func(t *testing.T) { serveOverUserNetwork(t, image, service) })
	t.Run("an ordinary user", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("this is no test as root")
		}
		const user = 12345
		dir, err := os.MkdirTemp("", "user") // t.TempDir is for root alone
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		if err := os.Chown(dir, user, user); err != nil {
			t.Fatal(err)
		}
		program, echo := filepath.Join(dir, filepath.Base(os.Args[0])), filepath.Join(dir, "echoservice")
		for to, from := range map[string]string{program: "/proc/self/exe", echo: service} {
			if err := os.WriteFile(to, must(os.ReadFile(from))(t), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestUserNetwork$/^this_user$", "-test.v")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), nextest.ProgramsDir(), echoVariable+"="+echo, "TMPDIR="+dir, "HOME="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		if output, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(output), "--- PASS: TestUserNetwork/this_user") {
			t.Errorf("%v\n%s", err, output)
		}
	})
}

// serveOverUserNetwork runs a node whose one machine is a microVM with a service.
func serveOverUserNetwork(t *testing.T, image, service string) {
	srv := nextest.Server(t)
	port := strconv.Itoa(srv.Addr().(*net.TCPAddr).Port)
	r := newRigOn(t, srv, microVMs{Kind: nex.SandboxQEMU, Network: "user", Image: image, NATS: "192.168.127.1:" + port}.settings())
	logs := make(chan *nats.Msg, 100)
	sub := must(r.nc.ChanSubscribe("$NEX.logs.>", logs))(t)
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	w := r.upload(t, "echo", nex.Native, must(os.ReadFile(service))(t))
	w.Environment = map[string]string{"NATS_URL": "nats://192.168.127.1:" + port}
	w.Settings.Ready = nex.Ready{Subject: "svc.echo"}
	reply, err := r.deploy(t, w)
	if err != nil {
		t.Fatal(err)
	}
	m := nextest.Await(t, logs, "what the service says")
	if l := must(nex.ParseLog(m.Subject, m.Data))(t); !strings.HasPrefix(l.Text, "serving svc.echo on ") {
		t.Fatalf("the service says %q", l.Text)
	}
	r.health(t)
	if got := string(r.call(t, "svc.echo", []byte("over there")).Data); got != "over there" {
		t.Errorf("the service answered %q", got)
	}
	running := agents(t, r.dir) // QEMU and what forwards
	if len(running) != 2 {
		t.Errorf("%d processes below the node, want QEMU and one for the connection", len(running))
	}
	var ended []unix.PollFd
	for _, pid := range running {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join("/proc", strconv.Itoa(pid)), &st); err != nil {
			t.Error(err)
		}
		if own := st.Uid >= 2_000_000_000; own != (os.Geteuid() == 0) {
			t.Errorf("process %d of the machine is user %d; of a node that is root it is one of the machine's own", pid, st.Uid)
		}
		ended = append(ended, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	if err := r.stop(t, "echo", reply.ID); err != nil {
		t.Error(err)
	}
	for i := range ended {
		if n, err := unix.Poll(ended[i:i+1], int(nextest.Patience/time.Millisecond)); n != 1 {
			t.Errorf("process %d runs on: %v", running[i], err)
		}
	}
}
