package node_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nex"
	"nex/internal/config"
	"nex/internal/nextest"
	"nex/internal/node"
)

// nodeVariable makes this test binary a node that is there to be killed.
const nodeVariable = "NODE_TEST_NODE"

// nodeSpec is what such a node is told.
type nodeSpec struct {
	URL, Dir, Agent string
	MicroVMs        *microVMs // nil for none
}

// microVMs are machines of a node that are microVMs.
type microVMs struct {
	Kind     nex.Sandbox
	Network  string // of QEMU
	Image    string // directory
	Programs string // directory of Firecracker
	Plugins  string // directory of CNI's
	NATS     string // as services reach it
	Pool     int
}

func (m microVMs) settings() config.Config {
	s := config.Default()
	s.Sandbox, s.QEMU, s.PoolSize, s.ResourceDir = m.Kind, config.QEMU{Accel: "tcg", Network: m.Network}, m.Pool, m.Image
	s.HandshakeTimeout = 2 * time.Minute
	if m.Network == "user" { // which has NATS at its usual port for the guest, wherever it is
		s.Egress = []string{m.NATS}
	} else {
		s.Egress, s.EgressNATS = []string{"nats"}, m.NATS
	}
	if m.Programs != "" {
		s.BinPath = []string{m.Programs}
	}
	if m.Plugins != "" {
		s.CNI.BinPath = []string{m.Plugins}
	}
	return s
}

// beNode runs a node until it is killed, or asked to end.
func beNode() int {
	var told nodeSpec
	if err := json.Unmarshal([]byte(os.Getenv(nodeVariable)), &told); err != nil {
		fmt.Println(err)
		return 1
	}
	s := config.Default()
	s.Sandbox, s.AgentPath, s.HandshakeTimeout = nex.SandboxNone, told.Agent, nextest.Patience
	if told.MicroVMs != nil {
		s = told.MicroVMs.settings()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err := node.Run(ctx, node.Config{
		Settings: s, Version: "test", StateDir: told.Dir, Server: told.URL, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Ready: func(n nex.NodeInfo) { fmt.Println("ready") },
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// startNode runs a node as a process of its own. Kill ends it as kill -9 does.
func startNode(t *testing.T, url, dir string) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	startCommand(t, nodeSpec{URL: url, Dir: dir, Agent: nextest.AgentPath(t)}, cmd)
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// startCommand is [startNode] for a command that runs this test binary. It is
// asked to end when the test does, if it is not killed before.
func startCommand(t *testing.T, what nodeSpec, cmd *exec.Cmd) {
	t.Helper()
	text, err := json.Marshal(what)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), nodeVariable+"="+string(text))
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.Process.Signal(syscall.SIGTERM) == nil {
			_ = cmd.Wait()
		}
	})
	said := make([]byte, 6)
	if n, _ := out.Read(said); string(said[:n]) != "ready\n" {
		t.Fatalf("the node says %q", said[:n])
	}
}

// killableRig is a rig without a node, and the node that runs in a process of its own.
func killableRig(t *testing.T) (r *rig, kill func()) {
	t.Helper()
	r = newRig(t, settings(t))
	r.end()
	kill = startNode(t, r.nc.ConnectedUrl(), r.dir)
	return r, kill
}

// awaitAnswers asks every subject until each answers, and returns how long that
// took.
func (r *rig) awaitAnswers(t *testing.T, subjects []string) time.Duration {
	t.Helper()
	begin := time.Now()
	for _, s := range subjects {
		retry(t, "an answer from "+s, func(ctx context.Context) error {
			m, err := r.nc.RequestWithContext(ctx, s, []byte(s))
			if err == nil && string(m.Data) != s {
				err = fmt.Errorf("it is %q", m.Data)
			}
			return err
		})
	}
	return time.Since(begin)
}

// TestKilledNodeBringsItsWorkloadsBack kills a node as kill -9 does, and starts
// it again on its directory.
func TestKilledNodeBringsItsWorkloadsBack(t *testing.T) {
	const functions = 49
	r, kill := killableRig(t)
	ids, subjects := map[string]string{}, []string{}
	for i := range functions {
		name := fmt.Sprintf("f%d", i)
		ids[name] = r.mustDeployJS(t, name, "back."+name, echo)
		subjects = append(subjects, "back."+name)
	}
	svc := r.service(t, "svc", nex.Settings{Restart: nex.Restart{Policy: nex.RestartAlways}, Ready: nex.Ready{Subject: "svc"}})
	svc.HostServices = &nex.NATSAccess{URL: r.nc.ConnectedUrl()}
	reply, err := r.deploy(t, svc)
	if err != nil {
		t.Fatal(err)
	}
	ids["svc"] = reply.ID
	r.health(t)
	if err := r.nc.Publish("svc", []byte("3")); err != nil {
		t.Fatal(err)
	}
	r.await(t, nex.WorkloadRestarting{})
	r.health(t)
	gone := r.mustDeployJS(t, "gone", "back.gone", echo)
	if err := r.stop(t, "gone", gone); err != nil {
		t.Fatal(err)
	}

	kill()
	for deadline := time.Now().Add(nextest.Patience); len(agents(t, r.dir)) > 0; {
		if <-time.After(10 * time.Millisecond); time.Now().After(deadline) {
			for _, pid := range agents(t, r.dir) {
				said, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // it may have ended now
				where, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				t.Logf("%q %.300s", where, said)
			}
			t.Fatal("agents outlive their node")
		}
	}
	r.node, r.end = runNode(t, r.nc.ConnectedUrl(), r.dir, settings(t))
	t.Logf("%d functions answer %s after the node did", functions, r.awaitAnswers(t, subjects))
	r.health(t)
	info, err := r.Info(t.Context(), r.node.NodeID)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range info.Machines {
		if ids[m.Workload.Name] != m.ID || !m.Healthy {
			t.Errorf("%s is %s, healthy %t (%s), and was %s", m.Workload.Name, m.ID, m.Healthy, m.Unhealthy, ids[m.Workload.Name])
		}
		if want := map[string]int{"svc": 1}[m.Workload.Name]; m.Restarts != want {
			t.Errorf("%s was started again %d times, want %d", m.Workload.Name, m.Restarts, want)
		}
		delete(ids, m.Workload.Name)
	}
	if len(ids) > 0 {
		t.Errorf("not back: %v", ids)
	}
	if left, _ := os.ReadDir(filepath.Join(r.dir, "workloads")); len(left) != functions+1 {
		t.Errorf("%d records of %d workloads", len(left), functions+1)
	}
}

// TestStoppedNodeBringsItsWorkloadsBack, as one that is updated does; what was
// stopped, or ended by itself, stays ended.
func TestStoppedNodeBringsItsWorkloadsBack(t *testing.T) {
	r := newRig(t, settings(t))
	id := r.mustDeployJS(t, "echo", "back.echo", echo)
	stopped := r.mustDeployJS(t, "stopped", "back.stopped", echo)
	if err := r.stop(t, "stopped", stopped); err != nil {
		t.Fatal(err)
	}
	w := r.upload(t, "done", nex.Native, []byte("#!/bin/sh\nexit 0\n"))
	if _, err := r.deploy(t, w); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.await(t, nex.WorkloadUndeployed{})
	}
	r.end()
	r.node, r.end = runNode(t, r.nc.ConnectedUrl(), r.dir, settings(t))
	r.awaitAnswers(t, []string{"back.echo"})
	info, err := r.Info(t.Context(), r.node.NodeID)
	if err != nil || len(info.Machines) != 1 || info.Machines[0].ID != id {
		t.Errorf("info %+v, %v", info.Machines, err)
	}
	if err := r.stop(t, "echo", id); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Join(r.dir, "workloads")); len(left) != 0 {
		t.Errorf("records left: %v", left)
	}
}

// TestRestoredWorkloadMayBeRefused: the configuration has changed, and changes
// back.
func TestRestoredWorkloadMayBeRefused(t *testing.T) {
	r := newRig(t, settings(t))
	r.mustDeployJS(t, "echo", "back.echo", echo)
	r.end()
	s := settings(t)
	s.DenyTriggerSubjects = append(s.DenyTriggerSubjects, "back.>")
	r.node, r.end = runNode(t, r.nc.ConnectedUrl(), r.dir, s)
	if info, err := r.Info(t.Context(), r.node.NodeID); err != nil || len(info.Machines) > 0 {
		t.Errorf("it runs all the same: %+v, %v", info.Machines, err)
	}
	r.end()
	r.node, r.end = runNode(t, r.nc.ConnectedUrl(), r.dir, settings(t))
	r.awaitAnswers(t, []string{"back.echo"})
}

// TestRecordsKeepSecrets: what a request says of connections is not on disk in
// clear.
func TestRecordsKeepSecrets(t *testing.T) {
	r := newRig(t, settings(t))
	w := r.upload(t, "echo", nex.V8, []byte(echo))
	w.TriggerSubjects, w.Environment = []string{"back.echo"}, map[string]string{"A": "hunter2hunter2"}
	w.HostServices = &nex.NATSAccess{URL: "nats://user:hunter2hunter2@127.0.0.1:1"}
	if _, err := r.deploy(t, w); err != nil {
		t.Fatal(err)
	}
	files := 0
	err := filepath.WalkDir(r.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte("hunter2")) {
			t.Errorf("%s has it in clear", path)
		}
		if strings.Contains(path, "/workloads/") {
			files++
			if fi, err := d.Info(); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", path, fi.Mode(), err)
			}
		}
		return err
	})
	if err != nil || files != 1 {
		t.Errorf("%d records, %v", files, err)
	}
}

// TestRecordsThatCannotBeRead do not keep the node from its others.
func TestRecordsThatCannotBeRead(t *testing.T) {
	r := newRig(t, settings(t))
	id := r.mustDeployJS(t, "echo", "back.echo", echo)
	r.end()
	dir := filepath.Join(r.dir, "workloads")
	good, err := os.ReadFile(filepath.Join(dir, id+".json"))
	if err != nil {
		t.Fatal(err)
	}
	other := strings.Repeat("0", len(id))
	for name, content := range map[string]string{
		"a.json": "", "b.json": "{}", "c.json": "[1]", other + ".json": string(good), ".half-1": "{",
		"e.json": strings.Replace(string(good), `"request": "`, `"request": "AAAA`, 1),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r.node, r.end = runNode(t, r.nc.ConnectedUrl(), r.dir, settings(t))
	r.awaitAnswers(t, []string{"back.echo"})
	if _, err := os.Stat(filepath.Join(dir, ".half-1")); !os.IsNotExist(err) {
		t.Errorf("half a record is left: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 6 {
		t.Errorf("%d files, want 6: none that somebody may want to look at is removed", len(left))
	}
}

// TestDrainedNodeStaysEmpty: whoever drains a node wants nothing of it back.
func TestDrainedNodeStaysEmpty(t *testing.T) {
	r := newRig(t, settings(t))
	r.mustDeployJS(t, "echo", "back.echo", echo)
	if _, err := r.LameDuck(t.Context(), r.node.NodeID, nex.LameDuckRequest{Drain: true}); err != nil {
		t.Fatal(err)
	}
	r.await(t, nex.WorkloadUndeployed{})
	r.end()
	r.node, r.end = runNode(t, r.nc.ConnectedUrl(), r.dir, settings(t))
	if info, err := r.Info(t.Context(), r.node.NodeID); err != nil || len(info.Machines) > 0 {
		t.Errorf("%+v is back, %v", info.Machines, err)
	}
}
