package vmnet

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// doomedVariable holds what the process of a node that is to be killed does.
const doomedVariable = "NEX_TEST_DOOMED"

// doomed is a node that attaches a machine and then waits for its end.
type doomed struct {
	Config Config
	Dir    string
}

// live is what the process does that is killed. It says "attached" when it is.
func live(text string) error {
	var d doomed
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		return err
	}
	n, err := New(context.Background(), d.Config)
	if err != nil {
		return err
	}
	if _, err := n.Attach(context.Background(), "killed", d.Dir); err != nil {
		return err
	}
	fmt.Println("attached")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// TestKilled kills a node at several points of the making of a network, and has the
// next one sweep.
func TestKilled(t *testing.T) {
	n := newNetwork(t, nil) // for its settings
	exists := func(pattern string) func(string) bool {
		return func(dir string) bool {
			found, _ := filepath.Glob(strings.Replace(pattern, "DIR", dir, 1))
			return len(found) > 0
		}
	}
	for _, test := range []struct {
		name string
		at   func(dir string) bool
	}{
		{"recorded", exists("DIR/" + recordName)},
		{"namespace", exists(netnsPath("killed"))},
		{"lease", exists(filepath.Join(n.cfg.StateDir, "cni/leases/*/192.*"))},
		{"interface", func(string) bool { return strings.Contains(links(t), "veth") }},
		{"result", exists(filepath.Join(n.cfg.StateDir, "cni/cache/results/*"))},
		{"completed", func(dir string) bool { r, err := readRecord(dir); return err == nil && r != nil && r.IP != "" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := host(t)
			dir := t.TempDir()
			kill(t, doomed{n.cfg, dir}, func() bool { return test.at(dir) })
			if err := Sweep(t.Context(), n.cfg, dir); err != nil {
				t.Error(err)
			}
			if after := host(t); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if exists(filepath.Join(n.cfg.StateDir, "cni/leases/*/192.*"))("") {
				t.Error("there is a lease left")
			}
			if files, err := os.ReadDir(dir); err != nil || len(files) > 0 && !strings.HasSuffix(files[0].Name(), ".new") {
				t.Errorf("the directory: %v, %v", files, err)
			}
		})
	}
}

// kill starts a node and kills it and its plugins when it is time, as a service
// manager does with a group of processes.
func kill(t *testing.T, d doomed, now func() bool) {
	t.Helper()
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), doomedVariable+"="+string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var said strings.Builder
	cmd.Stderr = &said
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(100 * time.Microsecond)
	defer tick.Stop()
	for !now() && time.Now().Before(deadline) {
		<-tick.C
	}
	if !now() {
		t.Errorf("this never came; it said: %s", said.String())
	}
	syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	cmd.Wait()
}

// links describes the interfaces of this host.
func links(t *testing.T) string {
	t.Helper()
	all, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range all {
		names = append(names, l.Attrs().Name)
	}
	return strings.Join(names, " ")
}

// TestForeign leaves alone what is not the machine's.
func TestForeign(t *testing.T) {
	n := newNetwork(t, nil)
	path := netnsPath("mine")
	if err := makeNetNS(path); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := n.Attach(t.Context(), "mine", dir); err == nil || !strings.Contains(err.Error(), "ip netns delete") {
		t.Error(err)
	}
	if err := Sweep(t.Context(), n.cfg, dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	if err := removeNetNS(path); err != nil {
		t.Error(err)
	}
	for _, text := range []string{`{`, `{"version":2,"id":"a","netns":"/var/run/netns/nex-a"}`, `{"version":1,"id":"a","netns":"/etc"}`, `{"version":1,"id":"../a","netns":"/var/run/netns/nex-../a"}`} {
		if err := os.WriteFile(filepath.Join(dir, recordName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Sweep(t.Context(), n.cfg, dir); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
	if _, err := n.Attach(t.Context(), "../x", t.TempDir()); err == nil {
		t.Error("an id that is a path was taken")
	}
}

// TestExhausted has more machines than the subnet has addresses, and nothing left of
// the one too many.
func TestExhausted(t *testing.T) {
	n := newNetwork(t, func(c *Config) {
		c.Subnet = netip.MustParsePrefix("10.66.0.0/29")
		c.Egress = []string{"nats"}
	})
	for i := range 5 {
		attach(t, n, fmt.Sprint("m", i))
	}
	before, dir := host(t), t.TempDir()
	if _, err := n.Attach(t.Context(), "more", dir); err == nil || !strings.Contains(err.Error(), "no IP addresses") {
		t.Error(err)
	}
	if after := host(t); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("the directory: %v, %v", files, err)
	}
}

// TestNotRoot tells that a network takes root.
func TestNotRoot(t *testing.T) {
	n := newNetwork(t, nil)
	text, err := json.Marshal(doomed{n.cfg, t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), doomedVariable+"="+string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "it takes root") {
		t.Errorf("%v, %s", err, out)
	}
}
