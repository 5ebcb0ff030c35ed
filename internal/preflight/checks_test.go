package preflight

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/config"
	"nex/internal/keyfile"
	"nex/internal/machine/microvm"
	"nex/internal/nextest"
	"nex/internal/rootfs"
)

// find returns the finding of a name.
func find(t *testing.T, all []Finding, name string) Finding {
	t.Helper()
	i := slices.IndexFunc(all, func(f Finding) bool { return f.Name == name })
	if i < 0 {
		t.Fatalf("nothing was looked at that is called %q", name)
	}
	return all[i]
}

// program puts a program into a directory that says its version.
func program(t *testing.T, dir, name, says string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho '"+says+"'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrograms(t *testing.T) {
	t.Setenv("PATH", "/usr/bin:/bin") // of sh, and without what the host may have
	h := testHost(t)
	p := h.probe(t.Context())
	if f := p.firecracker(t.Context()); f.Result != Missing || f.Searched[0] != h.Settings.BinPath[0] {
		t.Errorf("none: %+v", f)
	}
	path := program(t, h.Settings.BinPath[0], "firecracker", "Firecracker v1.10.0")
	if f := p.firecracker(t.Context()); f.Result != OK || f.Found != path || f.Detail != "1.10.0" || f.Path != path {
		t.Errorf("good: %+v", f)
	}
	program(t, h.Settings.BinPath[0], "firecracker", "Firecracker v1.5.0")
	if f := p.firecracker(t.Context()); f.Result != Missing || !strings.Contains(f.Detail, path+": it is version 1.5.0, which is too old") {
		t.Errorf("old: %+v", f)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if f := p.firecracker(t.Context()); f.Result != Missing || !strings.Contains(f.Detail, "exit status 3") {
		t.Errorf("broken: %+v", f)
	}
	h.Settings.AgentPath = program(t, t.TempDir(), "nex-agent", h.Version)
	if f := p.agent(t.Context()); f.Result != OK || f.Detail != h.Version {
		t.Errorf("agent: %+v", f)
	}
	program(t, filepath.Dir(h.Settings.AgentPath), "nex-agent", "0.0.1")
	if f := p.agent(t.Context()); f.Result != Warning || !strings.Contains(f.Detail, "of version 0.0.1, and this nex of 1.2.3") {
		t.Errorf("another agent: %+v", f)
	}
}

// TestJailerIsTheDriversOwn: what is looked at is what a node would take, and is
// refused where it would refuse it.
func TestJailerIsTheDriversOwn(t *testing.T) {
	t.Setenv("PATH", "/usr/bin:/bin")
	h := testHost(t)
	first, second := h.Settings.BinPath[0], t.TempDir()
	h.Settings.BinPath = []string{first, second}
	want := func(result Result, path, detail string) {
		t.Helper()
		p := h.probe(t.Context())
		if f := p.jailer(t.Context()); f.Result != result || f.Path != path || !strings.Contains(f.Detail, detail) || f.Result != OK && f.Fix == "" {
			t.Errorf("got %+v, want %s, %s, %s", f, result, path, detail)
		}
	}
	want(Missing, "", "none of the directories")
	vmm := program(t, second, "firecracker", "Firecracker v1.12.0")
	want(Missing, "", "none of the directories")
	far := program(t, first, "jailer", "Jailer v1.12.0")
	want(OK, far, "1.12.0")
	beside := program(t, second, "jailer", "Jailer v1.11.0") // which a node takes first
	want(Missing, beside, "is not of the version 1.12.0")
	program(t, second, "jailer", "Jailer v1.12.0")
	h.Settings.Jailer.ChrootBase = "relative"
	want(Missing, beside, "jailer.chroot_base")
	h.Settings.Jailer.ChrootBase = ""
	if err := errors.Join(os.Rename(vmm, filepath.Join(second, "vmm")), os.Symlink("vmm", vmm)); err != nil {
		t.Fatal(err)
	}
	want(Missing, beside, "is called otherwise")
}

// TestPluginsAreThoseOfTheNetwork: and are found where libcni finds them.
func TestPluginsAreThoseOfTheNetwork(t *testing.T) {
	h := testHost(t)
	names := func() string { return strings.Join(h.probe(t.Context()).plugins(), " ") }
	if got := names(); got != "host-local ptp" {
		t.Errorf("without a configuration: %s", got)
	}
	path := h.Settings.CNI.Conflist()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(`{"cniVersion": "1.0.0", "name": "fcnet", "plugins": [
		{"type": "bridge", "ipam": {"type": "host-local"}}, {"type": "firewall"}, {"type": "tc-redirect-tap"}]}`), 0o644)); err != nil {
		t.Fatal(err)
	}
	if got := names(); got != "bridge firewall host-local" {
		t.Errorf("with one: %s", got)
	}
	h.Settings.Sandbox = nex.SandboxFirecracker
	file := program(t, h.Settings.CNI.BinPath[0], "bridge", "x")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	h.Settings.CNI.BinPath = append(h.Settings.CNI.BinPath, t.TempDir())
	program(t, h.Settings.CNI.BinPath[1], "bridge", "x")
	if f := plugin("bridge")(h.probe(t.Context()), t.Context()); f.Result != Missing || f.Path != file || !strings.Contains(f.Fix, "chmod 755") {
		t.Errorf("one that is not executable, and is taken all the same: %+v", f)
	}
}

// TestQEMUGoesWithoutPlugins: unless its network must be that of taps.
func TestQEMUGoesWithoutPlugins(t *testing.T) {
	h := testHost(t)
	h.Settings.Sandbox = nex.SandboxQEMU
	for network, want := range map[string]Result{"auto": Warning, "tap": Missing} {
		h.Settings.QEMU.Network = network
		if f := plugin("ptp")(h.probe(t.Context()), t.Context()); f.Result != want {
			t.Errorf("%s: %+v", network, f)
		}
	}
}

// TestAccelIsObeyed: a node that must have KVM does not start without.
func TestAccelIsObeyed(t *testing.T) {
	h := testHost(t)
	h.Settings.Sandbox = nex.SandboxQEMU
	none := errors.New("none")
	for accel, want := range map[string]Result{"auto": Warning, "kvm": Missing, "tcg": NotNeeded} {
		h.Settings.QEMU.Accel = accel
		p := h.probe(t.Context())
		p.kvm = none
		all := p.checks()
		i := slices.IndexFunc(all, func(c check) bool { return c.name == "KVM" })
		if f := all[i].run(t.Context(), p); f.Result != want || all[i].start != (accel == "kvm") {
			t.Errorf("%s: %+v, a node looks itself: %t", accel, f, all[i].start)
		}
	}
}

// TestWhatIsNeeded: each kind of sandbox has its own list.
func TestWhatIsNeeded(t *testing.T) {
	always := []string{"cgroups", "disk space", "file limit", "clock", "state directory", "NATS server", "JetStream", "control subjects"}
	linux := append([]string{"operating system", "architecture", "privileges"}, always...)
	vm := append([]string{"KVM", "VMLinux Kernel", "Initial RAM filesystem", "Root Filesystem Template"}, linux...)
	network := []string{"nftables", "IP forwarding", "host-local CNI plugin", "ptp CNI plugin", "tc-redirect-tap CNI plugin", "CNI Configuration"}
	firecracker := slices.Concat(vm, network, []string{"Firecracker VM binary"})
	qemu := append([]string{"QEMU VM binary"}, vm...)
	if os.Geteuid() == 0 {
		firecracker = append(firecracker, "Firecracker jailer binary")
		qemu = append(qemu, network...)
	}
	for kind, want := range map[nex.Sandbox][]string{
		nex.SandboxNone:        append([]string{"Nex-agent binary"}, always...),
		nex.SandboxOS:          append([]string{"Nex-agent binary", "namespaces of the OS sandbox"}, linux...),
		nex.SandboxQEMU:        qemu,
		nex.SandboxFirecracker: firecracker,
	} {
		h := testHost(t)
		p := h.probe(t.Context())
		p.vmm = kind
		var got []string
		for _, c := range p.checks() {
			if c.needed {
				got = append(got, c.name)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s needs %q, want %q", kind, got, want)
		}
	}
}

func TestMicroVMIsQEMUWithoutKVM(t *testing.T) {
	h := testHost(t)
	t.Setenv("PATH", "")
	h.Settings.Sandbox = nex.SandboxMicroVM
	p := h.probe(t.Context())
	want := nex.SandboxQEMU
	if p.kvm == nil { // and there is no QEMU
		want = nex.SandboxFirecracker
	}
	if p.vmm != want {
		t.Errorf("got %s where KVM is %v", p.vmm, p.kvm)
	}
}

// TestForStart: what a node does not start without is an error, and nobody is
// asked over the network.
func TestForStart(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	called := make(chan struct{})
	go func() {
		if conn, err := l.Accept(); err == nil {
			_ = conn.Close() // it should not be there
			close(called)
		}
	}()
	h := testHost(t)
	h.Server = "nats://" + l.Addr().String()
	h.Settings.Sandbox = nex.SandboxNone
	h.Settings.AgentPath = "/nowhere/nex-agent"
	if _, err := ForStart(t.Context(), h); err == nil || !strings.HasPrefix(err.Error(), "⛔ Dependency Missing - Nex-agent binary\n") || strings.Contains(err.Error(), "NATS") {
		t.Errorf("without an agent: %v", err)
	}
	h.Settings.AgentPath = program(t, t.TempDir(), "nex-agent", "0.0.1")
	doubtful, err := ForStart(t.Context(), h)
	if err != nil || len(doubtful) != 1 || doubtful[0].Name != "Nex-agent binary" {
		t.Errorf("with one of another version: %v, %v", doubtful, err)
	}
	h.Settings.Sandbox = nex.SandboxFirecracker
	_, err = ForStart(t.Context(), h)
	for _, name := range []string{"Firecracker VM binary", "ptp CNI plugin", "VMLinux Kernel", "Root Filesystem Template"} {
		if err == nil || !strings.Contains(err.Error(), "⛔ Dependency Missing - "+name) {
			t.Errorf("of a bare host for Firecracker: %v", err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-called:
		t.Error("somebody connected to NATS")
	default:
	}
	wantNoneIn(t, h.StateDir)
}

func TestImageFiles(t *testing.T) {
	h := testHost(t)
	p := h.probe(t.Context())
	kernel, initramfs, image := h.Settings.Image(h.StateDir)
	if err := os.MkdirAll(filepath.Dir(kernel), 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.ReadFile("/proc/self/exe") // an ELF file for this processor
	if err != nil {
		t.Skip("there is no /proc")
	}
	for _, c := range []struct {
		test func(context.Context) Finding
		path string
		text string
		want string // "" is OK
	}{
		{p.kernel, kernel, "", "no file, or empty"},
		{p.kernel, kernel, "bzImage", "no ELF kernel"},
		{p.kernel, kernel, string(self[:4096]), "no ELF kernel"},
		{p.initramfs, initramfs, "hello, world", "no archive"},
		{p.initramfs, initramfs, "070701000", ""},
		{p.initramfs, initramfs, "\x1f\x8b00000", ""},
		{p.initramfs, initramfs, "\x1fhello, world", "no archive"},
		{p.rootfs, image, strings.Repeat("hello, world", 1000), "ext4"},
		{p.rootfs, image, string(gzipped(t, []byte("an ext4 file system"))), "it is compressed, and guests get it as it is"},
	} {
		put(c.path, c.text)
		f := c.test(t.Context())
		if c.want == "" && f.Result != OK || c.want != "" && (f.Result != Missing || !strings.Contains(f.Detail, c.want)) {
			t.Errorf("%s of %d bytes: %v", c.path, len(c.text), f)
		}
	}
	build := func(version string) {
		t.Helper()
		o := rootfs.Options{Agent: nextest.StaticAgent(t), AgentVersion: version, Size: 256 << 20, Output: filepath.Join(t.TempDir(), "rootfs.ext4")}
		if _, err := rootfs.Build(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		h.Settings.RootFS = o.Output
	}
	build(h.Version)
	config := microvm.Config{Kernel: kernel, Initramfs: initramfs, RootFS: image}
	if err := config.Check(); err == nil { // which is the node's
		t.Error("a node takes what preflight refuses")
	}
	if f := p.rootfs(t.Context()); f.Result != OK {
		t.Errorf("with an agent: %v", f)
	}
	build("0.0.1")
	if f := p.rootfs(t.Context()); f.Result != Warning || !strings.Contains(f.Detail, "of version 0.0.1") {
		t.Errorf("with an agent of another version: %v", f)
	}
}

func TestStateDirectory(t *testing.T) {
	h := testHost(t)
	p := h.probe(t.Context())
	if f := p.state(t.Context()); f.Result != OK || f.Detail != "will be made" {
		t.Errorf("not there: %+v", f)
	}
	wantNoneIn(t, h.StateDir)
	if err := os.Mkdir(h.StateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if f := p.state(t.Context()); f.Result != Warning {
		t.Errorf("open to others: %+v", f)
	}
	if err := os.Chmod(h.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if f := p.state(t.Context()); f.Result != OK {
		t.Errorf("good: %+v", f)
	}
	wantNoneIn(t, h.StateDir)
	lock := flock.New(filepath.Join(h.StateDir, "lock"))
	if locked, err := lock.TryLock(); err != nil || !locked {
		t.Fatal(locked, err)
	}
	if f := p.state(t.Context()); f.Result != Missing || !strings.Contains(f.Detail, "in use by another node") {
		t.Errorf("in use: %+v", f)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if f := p.state(t.Context()); f.Result != OK {
		t.Errorf("not in use any more: %+v", f)
	}
	h.StateDir = h.Program
	if f := p.state(t.Context()); f.Result != Missing {
		t.Errorf("a file: %+v", f)
	}
}

func TestPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := testHost(t)
	h.Settings.PublicServer = &config.PublicServer{}
	h.Settings.PublicServer.Host, h.Settings.PublicServer.Port = "127.0.0.1", l.Addr().(*net.TCPAddr).Port
	if f := h.probe(t.Context()).port(t.Context()); f.Result != Missing {
		t.Errorf("taken: %+v", f)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if f := h.probe(t.Context()).port(t.Context()); f.Result != OK {
		t.Errorf("free: %+v", f)
	}
}

// natsFindings are those about a server.
func natsFindings(t *testing.T, h *Host) (reachable, jetStream, subjects Finding) {
	t.Helper()
	h.Settings.Sandbox = nex.SandboxNone
	all, err := Run(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	return find(t, all, "NATS server"), find(t, all, "JetStream"), find(t, all, "control subjects")
}

func TestNATS(t *testing.T) {
	h := testHost(t)
	s := nextest.Server(t)
	h.Server = s.ClientURL()
	if a, b, c := natsFindings(t, h); a.Result != OK || b.Result != OK || c.Result != OK {
		t.Errorf("good: %v %v %v", a, b, c)
	}
	s.Shutdown()
	s.WaitForShutdown()
	if a, b, c := natsFindings(t, h); a.Result != Missing || b.Result != Missing || c.Result != Missing || !strings.HasPrefix(a.Detail, "127.0.0.1:") {
		t.Errorf("gone: %v %v %v", a, b, c)
	}
	h.Settings.PublicServer, h.Server = &config.PublicServer{}, ""
	h.Settings.PublicServer.Host, h.Settings.PublicServer.Port = "127.0.0.1", server.RANDOM_PORT
	if a, b, c := natsFindings(t, h); a.Result != NotNeeded || b.Result != NotNeeded || c.Result != NotNeeded {
		t.Errorf("its own: %v %v %v", a, b, c)
	}
}

func TestHostsAreNamedWithoutSecrets(t *testing.T) {
	for servers, want := range map[string]string{
		"nats://user:secret@a:4222, tls://secret@b": "a:4222, b",
		"localhost":           "localhost",
		"localhost:4222":      "localhost:4222",
		"secret@example:4222": "(not a URL)",
		"nats://%zz:secret@a": "(not a URL)",
		"user:secret@a:4222":  "a:4222",
	} {
		if got := hosts(servers); got != want {
			t.Errorf("%s: got %q, want %q", servers, got, want)
		}
	}
}

func TestPermissions(t *testing.T) {
	h := testHost(t)
	key, _, err := keyfile.Load(filepath.Join(h.StateDir, "identity", "node.nk"), nkeys.CreateServer)
	if err != nil {
		t.Fatal(err)
	}
	id, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	allowed := func(user string, subscribe ...string) *server.User {
		return &server.User{Username: user, Password: "x", Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Allow: append(subscribe, "_INBOX.>")},
		}}
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, Users: []*server.User{
		allowed("node", "$NEX.PING", "$NEX.WPING.>", "$NEX.AUCTION", "$NEX.*."+id, "$NEX.*.*."+id),
		allowed("deaf", "$NEX.PING", "$NEX.PING.*", "$NEX.INFO.>", "$NEX.LAMEDUCK.*", "$NEX.WPING.>", "$NEX.STOP.>"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(nextest.Patience) {
		t.Fatal("the server does not start")
	}
	h.Server, h.Options = s.ClientURL(), []nats.Option{nats.UserInfo("node", "x")}
	if a, b, c := natsFindings(t, h); a.Result != OK || b.Result != Missing || c.Result != OK {
		t.Errorf("a user for this node alone, without JetStream: %v %v %v", a, b, c)
	}
	h.Options = []nats.Option{nats.UserInfo("deaf", "x")}
	if _, _, c := natsFindings(t, h); c.Result != Missing || !strings.HasSuffix(c.Detail, "subscribe to $NEX.AUCTION, $NEX.DEPLOY.*."+id) {
		t.Errorf("a user who may not hear all: %v", c)
	}
	h.Options = []nats.Option{nats.UserInfo("nobody", "x")}
	if a, _, _ := natsFindings(t, h); a.Result != Missing || !strings.Contains(a.Detail, "Authorization Violation") {
		t.Errorf("nobody: %v", a)
	}
}

// TestRunChangesNothing: also where there is nothing.
func TestRunChangesNothing(t *testing.T) {
	h := testHost(t)
	h.Settings.Sandbox = nex.SandboxQEMU
	if _, err := Run(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Dir(h.StateDir)); err != nil || len(entries) != 1 { // nex
		t.Errorf("there is %v, %v", entries, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, h); err == nil {
		t.Error("it goes on when it is told to stop")
	}
}

// TestFindingsAreWhole: a host with nothing is told of all that a node lacks, why it
// needs it and what to do.
func TestFindingsAreWhole(t *testing.T) {
	t.Setenv("PATH", "")
	for _, kind := range []nex.Sandbox{nex.SandboxNone, nex.SandboxOS, nex.SandboxQEMU, nex.SandboxFirecracker, nex.SandboxMicroVM} {
		h := testHost(t)
		h.Settings.Sandbox, h.Settings.AgentPath, h.Server = kind, "/nowhere/nex-agent", "nats://secret:secret@127.0.0.1:1?secret"
		all, err := Run(t.Context(), h)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			bad := f.Result == Missing || f.Result == Warning
			if f.Group == "" || f.Name == "" || f.Why == "" || f.Result == "" || bad && (f.Detail == "" || f.Fix == "") || f.Result == OK && f.Found == "" {
				t.Errorf("%s: %+v", kind, f)
			}
			if strings.Contains(f.String(), "secret") {
				t.Errorf("%s: %v", kind, f)
			}
			if of := f.Group == groupFiles || f.Name == "state directory"; of && f.Result != NotNeeded && !strings.HasPrefix(f.Path, filepath.Dir(h.StateDir)) {
				t.Errorf("%s: %s has path %q", kind, f.Name, f.Path)
			}
		}
	}
}

// TestJailMustShowTheImage: what only root may read is no image for machines that are
// other users.
func TestJailMustShowTheImage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("there is no jail without root")
	}
	h := testHost(t)
	h.Settings.Sandbox = nex.SandboxFirecracker
	_, path, _ := h.Settings.Image(h.StateDir)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("070701"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]Result{0o644: OK, 0o600: Missing, 0o646: Missing} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		h.Settings.Jailer.Off = false
		if f := h.probe(t.Context()).initramfs(t.Context()); f.Result != want || want == Missing && !strings.Contains(f.Fix, "chmod o+r,go-w "+path) {
			t.Errorf("%v: %+v", mode, f)
		}
		h.Settings.Jailer.Off = true
		if f := h.probe(t.Context()).initramfs(t.Context()); f.Result != OK {
			t.Errorf("%v, without a jail: %+v", mode, f)
		}
	}
}
