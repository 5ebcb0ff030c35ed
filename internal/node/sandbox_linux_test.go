package node_test

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/config"
	"nex/internal/nextest"
	"nex/internal/node"
)

// TestInSandbox runs tests of nodes again behind the OS sandbox: all whose services
// are no scripts, which would find no interpreter there.
func TestInSandbox(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"FirstTriggerIsAnswered": TestFirstTriggerIsAnswered,
		"RunawayIsStopped":       TestRunawayIsStoppedAndTheNextCallWorks, "KilledAgentIsReplaced": TestKilledAgentIsReplaced,
		"WasmEcho": TestWasmEcho, "LargeHeadersAndEnvironments": TestLargeHeadersAndEnvironments, "Refusals": TestRefusals,
		"LameDuck": TestLameDuck, "GuideExamples": TestGuideExamples, "HostRefusals": TestHostRefusals,
		"HostServicesKeepTenantsApart": TestHostServicesKeepTenantsApart, "HostCallsEndWithTheCall": TestHostCallsEndWithTheCall,
		"HeadersGoInAndOut": TestHeadersGoInAndOut, "TriggersElsewhere": TestTriggersElsewhere,
	} {
		t.Run(name, test)
	}
}

// confined are the settings of a node whose sandbox is os.
func confined(t *testing.T) config.Config {
	s := settings(t)
	s.Sandbox, s.AgentPath = nex.SandboxOS, nextest.StaticAgent(t)
	return s
}

// runGuest runs the program of testdata/guest on a node and returns its logs.
func (r *rig) runGuest(t *testing.T, args ...string) <-chan nex.Log {
	t.Helper()
	logs := make(chan nex.Log, 1000)
	sub, err := r.nc.Subscribe("$NEX.logs.>", func(m *nats.Msg) {
		if l, err := nex.ParseLog(m.Subject, m.Data); err == nil {
			logs <- l
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	program, err := os.ReadFile(nextest.GuestProgram(t))
	if err != nil {
		t.Fatal(err)
	}
	w := r.upload(t, "svc", nex.Native, program)
	w.Argv = args
	if _, err := r.deploy(t, w); err != nil {
		t.Fatal(err)
	}
	return logs
}

// awaitLog returns the first record that begins with prefix.
func awaitLog(t *testing.T, logs <-chan nex.Log, prefix string) string {
	t.Helper()
	for {
		if l := nextest.Await(t, logs, "the log "+prefix); strings.HasPrefix(l.Text, prefix) {
			return l.Text
		}
	}
}

func TestSandboxedServices(t *testing.T) {
	s := confined(t)
	r := newRig(t, s)
	if got := r.node.Sandbox(); got != nex.SandboxOS || r.node.Tags[nex.TagSandboxMissing] != "" || r.node.Tags[nex.TagUnsafe] != "" {
		t.Errorf("tags %v", r.node.Tags)
	}
	t.Run("host services", func(t *testing.T) {
		logs := r.runGuest(t, "host")
		if text := awaitLog(t, logs, "this node's sandbox has no network"); !strings.Contains(text, `"os_sandbox"`) {
			t.Errorf("the notice: %s", text)
		}
		if text := awaitLog(t, logs, "host services: "); text != "host services: 200 [] <nil>" {
			t.Error(text)
		}
	})
	for name, tc := range map[string]struct {
		content []byte
		want    string
	}{
		"a script":             {[]byte("#!/bin/sh\n"), "only statically linked binaries run here"},
		"a dynamic executable": {dynamic(t), "dynamically linked dependency"},
		"a 32-bit executable":  {program32(t), "32-bit"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := r.deploy(t, r.upload(t, "refused", nex.Native, tc.content)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

// TestNetworkOfSandboxedServices: they reach the host only if the node says so.
func TestNetworkOfSandboxedServices(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	address := listener.Addr().String()
	for network, want := range map[string]string{
		config.NoNetwork: "dial: dial tcp " + address + ": connect: connection refused", config.HostNetwork: "dial: <nil>",
	} {
		t.Run(network, func(t *testing.T) {
			s := confined(t)
			s.OSNetwork = network
			if text := awaitLog(t, newRig(t, s).runGuest(t, "dial", address), "dial: "); text != want {
				t.Error(text)
			}
		})
	}
}

// dynamic returns an executable that needs libraries: this one.
func dynamic(t *testing.T) []byte {
	t.Helper()
	sh, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	return sh
}

// program32 returns an executable for the processor's smaller brother.
func program32(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-o", path, "../nextest/testdata/small")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=386", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestSandboxThatDoesNotWork: the reason is said, and what to do.
func TestSandboxThatDoesNotWork(t *testing.T) {
	s := confined(t)
	s.AgentPath = nextest.AgentPath(t) // needs libraries, and there are none inside
	wantNoStart(t, s, "dynamically linked")
}

func wantNoStart(t *testing.T, s config.Config, why string) {
	t.Helper()
	err := node.Run(t.Context(), node.Config{Settings: s, StateDir: t.TempDir(), Server: "nats://127.0.0.1:1", Log: slog.New(slog.DiscardHandler)})
	for _, want := range []string{`sandbox "os" does not work on this host`, why, "best_effort"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestHostWithoutNamespaces is of a host that forbids user namespaces: a node
// refuses to run there, and with best effort runs and says what is missing.
func TestHostWithoutNamespaces(t *testing.T) {
	const role, knob = "NEX_TEST_WITHOUT", "/proc/sys/user/max_user_namespaces"
	if os.Getenv(role) == "" {
		nextest.StaticAgent(t)
		nextest.GuestProgram(t)
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestHostWithoutNamespaces$", "-test.v")
		cmd.Args[0] = os.Args[0]
		cmd.Env = append(os.Environ(), nextest.ProgramsDir(), role+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWUSER, UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if err := os.WriteFile(knob, []byte("0"), 0); err != nil { // it is that of our own user namespace
		t.Fatal(err)
	}
	s := confined(t)
	wantNoStart(t, s, knob+" is 0")
	var log bytes.Buffer
	s.BestEffort = true
	dir, err := os.MkdirTemp("", "n") // a short name: the socket of host services has a name of its own then, which Landlock knows
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // temporary
	r := &rig{nc: nextest.Connect(t, nextest.Server(t)), dir: dir}
	r.keys.Issuer, _ = nkeys.CreateAccount()
	r.keys.Sender, _ = nkeys.CreateCurveKeys()
	if r.Client, err = nex.NewClient(r.nc, ""); err != nil {
		t.Fatal(err)
	}
	var end func()
	r.node, end = runConfig(t, node.Config{
		Settings: s, StateDir: r.dir, Server: r.nc.ConnectedUrl(), Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	awaitLog(t, r.runGuest(t, "host"), "host services: 200")
	awaitLog(t, r.runGuest(t, "read", "/etc/passwd"), "read: open /etc/passwd: permission denied")
	end()
	if missing := r.node.Tags[nex.TagSandboxMissing]; !strings.HasPrefix(missing, "namespaces: ") || strings.Count(log.String(), "The sandbox of this node has gaps") != 1 {
		t.Errorf("tag %q, log\n%s", missing, log.String())
	}
}
