package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"nex/internal/guest"
	"nex/internal/nextest"
)

// stageVariable has the test binary, as process 1 of namespaces of its own, make a
// guest of the directory that it names and execute the agent in there.
const stageVariable = "NEX_TEST_STAGE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(stageVariable); dir != "" {
		fmt.Fprintln(os.Stderr, "stage:", stage(dir))
		os.Exit(3)
	}
	nextest.Main(m)
}

// world is a guest without a virtual machine: namespaces, with a terminal in the
// place of the virtio-serial port.
type world struct {
	dir     string // its root directory, as seen from inside
	cmd     *exec.Cmd
	ended   chan error
	console string // the file of it
	client  *guest.Client
}

// inWorld starts an agent as process 1 of a guest. With script the image has a boot
// script.
func inWorld(t *testing.T, cmdline, script string) *world {
	t.Helper()
	if off, err := os.ReadFile("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"); err == nil && strings.TrimSpace(string(off)) == "1" && os.Geteuid() != 0 {
		t.Skip("this host lets only root make user namespaces")
	}
	w := &world{dir: t.TempDir(), ended: make(chan error, 1)}
	w.console = filepath.Join(w.dir, "console")
	host, port := terminal(t)
	for name, text := range map[string]string{
		"cmdline": cmdline + "\n", "console": "", "boot.sh": script, "port": port,
		"agent": nextest.StaticAgent(t), "guest": nextest.GuestProgram(t),
	} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(w.dir, "root"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.cmd = exec.Command("/proc/self/exe")
	w.cmd.Env = []string{stageVariable + "=" + w.dir, "junk=1"}
	var said bytes.Buffer
	w.cmd.Stderr = &said
	w.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal("make namespaces: ", err)
	}
	go func() { w.ended <- w.cmd.Wait(); close(w.ended) }()
	t.Cleanup(func() {
		_ = w.cmd.Process.Kill() // fails if it has ended
		<-w.ended
		if t.Failed() {
			t.Logf("stage: %s\nconsole: %s", said.String(), w.words(t))
		}
	})
	link := guest.NewPipes(host, nopCloser{host})
	ctx, cancel := context.WithTimeout(t.Context(), nextest.Patience)
	defer cancel()
	gone := context.AfterFunc(ctx, func() { _ = link.Close() })
	defer gone()
	go func() { <-w.ended; cancel() }()
	var err error
	if w.client, err = guest.Greet(ctx, link); err != nil {
		w.client = nil
		return w
	}
	t.Cleanup(w.client.Close)
	return w
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// terminal makes one that changes nothing of what goes through it.
func terminal(t *testing.T) (host *os.File, path string) {
	t.Helper()
	host, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() }) // the link has closed it
	raw, err := host.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	failed := raw.Control(func(fd uintptr) {
		if number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err != nil {
			return
		}
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err != nil {
			return
		}
		raw := unix.Termios{Cflag: unix.CS8 | unix.CREAD | unix.B38400}
		raw.Cc[unix.VMIN] = 1
		err = unix.IoctlSetTermios(int(fd), unix.TCSETS, &raw)
	})
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return host, fmt.Sprintf("/dev/pts/%d", number)
}

// words are what the console has said.
func (w *world) words(t *testing.T) string {
	t.Helper()
	said, err := os.ReadFile(w.console)
	if err != nil {
		t.Error(err)
	}
	return string(said)
}

// deploy starts a service of the guest program and returns what it prints.
func (w *world) deploy(t *testing.T, id string, argv ...string) <-chan string {
	t.Helper()
	program, err := os.ReadFile(nextest.GuestProgram(t))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(program)
	lines := make(chan string, 100)
	err = w.client.Deploy(t.Context(), guest.Deploy{
		ID: id, Namespace: "n", Name: "guest", File: "guest", Type: "native", SHA256: hex.EncodeToString(sum[:]), Argv: argv,
	}, bytes.NewReader(program), guest.Sink{Log: func(_ slog.Level, text string) { lines <- text }, Exited: func(guest.Exit) {}})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// poweredOff waits for the end of process 1, which must be what the kernel makes of
// a restart in a namespace.
func (w *world) poweredOff(t *testing.T) {
	t.Helper()
	nextest.Await(t, w.ended, "the guest to power off")
	if s, ok := w.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != unix.SIGHUP {
		t.Errorf("it ended with %v", w.cmd.ProcessState)
	}
}

// TestFirst is the life of an agent as process 1: it makes the system, takes work,
// buries orphans, and powers off when its node is gone.
func TestFirst(t *testing.T) {
	w := inWorld(t, "quiet nex.guest=1 ip=10.9.8.7::10.9.8.1:255.255.255.0:guest7:eth0:off nex.dns=10.9.8.1,10.9.8.2", "#!/guest capabilities\n")
	if w.client == nil {
		t.Fatal("no hello")
	}
	w.client.Ping(nextest.Patience)
	if said := w.words(t); !strings.Contains(said, "Cap") {
		t.Errorf("the boot script's output is not on the console: %q", said)
	}
	of := func(file string) string { return fmt.Sprintf("/proc/%d/%s", w.cmd.Process.Pid, file) }
	for file, want := range map[string][]string{
		"root/run/resolv.conf": {"nameserver 10.9.8.1\nnameserver 10.9.8.2\n"},
		"root/etc/hosts":       {"127.0.0.1 localhost\n", "127.0.1.1 guest7\n"},
		"mounts":               {" /run tmpfs ", " /dev/shm tmpfs "},
		"net/route":            {"eth0\t00000000\t0108090A\t0003", "eth0\t0008090A\t00000000"},
		"net/fib_trie":         {"|-- 10.9.8.7", "|-- 127.0.0.1"},
	} {
		text, err := os.ReadFile(of(file))
		for _, w := range want {
			if err != nil || !strings.Contains(string(text), w) {
				t.Errorf("%s: no %q in %s, %v", file, w, text, err)
			}
		}
	}
	if about, err := os.Stat(of("root/var/lib/nex")); err != nil || about.Mode().Perm() != 0o700 {
		t.Errorf("working directory: %v, %v", about, err)
	}
	if dir, err := os.Readlink(of("cwd")); err != nil || !strings.HasSuffix(dir, "/var/lib/nex") {
		t.Errorf("it works in %s, %v", dir, err)
	}
	if out := nextest.Await(t, w.deploy(t, "s1", "orphans"), "the service"); out != "zombies: 0" {
		t.Errorf("orphans: %q", out)
	}
	if err := w.client.Undeploy(t.Context(), "s1"); err != nil {
		t.Error(err)
	}
	w.client.Close()
	w.poweredOff(t)
}

// TestFirstEnds: what goes wrong is on the console, and the guest does not stay.
func TestFirstEnds(t *testing.T) {
	for name, tc := range map[string]struct{ cmdline, script, want string }{
		"boot script fails":  {"nex.guest=1", "#!/guest nonsense\n", "boot script /etc/nex/boot.sh: exit status 2"},
		"wrong command line": {"nex.guest=1 ip=dhcp", "", "kernel command line: \"ip=dhcp\""},
		"no network device":  {"nex.guest=1 ip=10.9.8.7:::255.255.255.0::eth7:off", "", "no device eth7"},
	} {
		t.Run(name, func(t *testing.T) {
			w := inWorld(t, tc.cmdline, tc.script)
			if w.client != nil {
				t.Error("it said hello")
			}
			w.poweredOff(t)
			if said := w.words(t); !strings.Contains(said, tc.want) {
				t.Errorf("the console says %q, not %q", said, tc.want)
			}
		})
	}
}

// TestInterruptEndsTheGuest: as Ctrl-Alt-Del does, from outside.
func TestInterruptEndsTheGuest(t *testing.T) {
	w := inWorld(t, "nex.guest=1", "")
	if w.client == nil {
		t.Fatal("no hello")
	}
	for _, harmless := range []syscall.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1} {
		if err := w.cmd.Process.Signal(harmless); err != nil {
			t.Fatal(err)
		}
	}
	w.client.Ping(nextest.Patience)
	if err := w.client.Err(); err != nil {
		t.Fatal("signals ended it: ", err)
	}
	if err := w.cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	nextest.Await(t, w.client.Done(), "the link to end")
	w.poweredOff(t)
}

// TestFirstOfAContainer: process 1 without the marker is no guest. It fails, and
// restarts nothing.
func TestFirstOfAContainer(t *testing.T) {
	w := inWorld(t, "quiet", "")
	if w.client != nil {
		t.Error("it said hello")
	}
	nextest.Await(t, w.ended, "the agent to end")
	if code := w.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("it ended with %v", w.cmd.ProcessState)
	}
}

// stage makes a root directory below dir and executes the agent there. It returns
// only if it cannot.
func stage(dir string) error {
	root := filepath.Join(dir, "root")
	read := func(name string) string {
		text, _ := os.ReadFile(filepath.Join(dir, name)) // binding nothing fails
		return string(text)
	}
	tap, err := makeTap("eth0")
	if err != nil {
		return fmt.Errorf("make network device: %w", err)
	}
	defer tap.Close()
	in := func(path string) string { return filepath.Join(root, path) }
	steps := []error{
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("tmpfs", root, "tmpfs", 0, ""),
	}
	for _, d := range []string{"proc", "sys", "dev", "etc/nex", "run", "tmp"} {
		steps = append(steps, os.MkdirAll(in(d), 0o755))
	}
	bind := func(from, to string) error {
		return errors.Join(os.WriteFile(in(to), nil, 0o700), unix.Mount(from, in(to), "", unix.MS_BIND, ""))
	}
	steps = append(steps,
		unix.Mount("proc", in("proc"), "proc", 0, ""),
		unix.Mount(filepath.Join(dir, "cmdline"), in("proc/cmdline"), "", unix.MS_BIND, ""),
		unix.Mount("tmpfs", in("sys"), "tmpfs", 0, ""),
		os.MkdirAll(in("sys/class/virtio-ports/vport0p1"), 0o755),
		os.WriteFile(in("sys/class/virtio-ports/vport0p1/name"), []byte("nex.link\n"), 0o600),
		os.MkdirAll(in("sys/fs/cgroup"), 0o755),
		unix.Mount("tmpfs", in("sys/fs/cgroup"), "tmpfs", 0, ""), // the host's groups are not for a test
		unix.Mount("tmpfs", in("dev"), "tmpfs", 0, ""),
		bind("/dev/null", "dev/null"), bind(filepath.Join(dir, "console"), "dev/console"), bind(read("port"), "dev/vport0p1"),
		bind(read("agent"), "agent"), bind(read("guest"), "guest"),
		os.Symlink("/run/resolv.conf", in("etc/resolv.conf")),
	)
	if script := read("boot.sh"); script != "" {
		steps = append(steps, os.WriteFile(in("etc/nex/boot.sh"), []byte(script), 0o755))
	}
	steps = append(steps, unix.Chroot(root), unix.Chdir("/"))
	if err := errors.Join(steps...); err != nil {
		return err
	}
	return syscall.Exec("/agent", []string{"/agent", "splash"}, []string{"junk=1"})
}

// makeTap makes a network device that is there as long as the file is open, which
// executing does not close.
func makeTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	return os.NewFile(uintptr(fd), "tap"), unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
}
