package firecracker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"nex/internal/cgroup"
	"nex/internal/machine/firecracker/fcemu"
	"nex/internal/machine/microvm"
	"nex/internal/nextest"
)

// jailedLauncher is [newLauncher] as root.
func jailedLauncher(t *testing.T) *Launcher {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the jailer takes root")
	}
	l := newLauncher(t)
	if l.Jail == nil {
		t.Skip(realJailer + " is not set")
	}
	return l
}

// jailOf is the directory of a machine below that where its root directory is made.
func jailOf(t *testing.T, l *Launcher, id string) string {
	t.Helper()
	program, err := filepath.EvalSymlinks(l.Firecracker)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(filepath.Base(program), id)
}

func statOf(t *testing.T, path string) *syscall.Stat_t {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t)
}

func TestJailHasLinksToTheImageAndAUserOfItsOwn(t *testing.T) {
	l := jailedLauncher(t)
	l.Jail.Cgroup = nil
	m, err := l.Launch(t.Context(), "m")
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(l.Dir, "m", jailOf(t, l, "m"), "root")
	user := uint32(microvm.UserOf("m"))
	for name, file := range map[string]string{kernelFile: l.Kernel, initramfsFile: l.Initramfs, rootfsFile: l.RootFS} {
		s := statOf(t, filepath.Join(root, name))
		if s.Ino != statOf(t, file).Ino || s.Uid == user {
			t.Errorf("%s is inode %d of user %d", name, s.Ino, s.Uid)
		}
	}
	if s := statOf(t, filepath.Join(root, diskFile)); s.Uid != user || s.Gid != user || s.Mode&0o777 != 0o600 {
		t.Errorf("the disk belongs to %d:%d, mode %o", s.Uid, s.Gid, s.Mode)
	}
	if s := statOf(t, root); s.Uid != user || s.Mode&0o777 != 0o700 {
		t.Errorf("the root directory belongs to %d, mode %o", s.Uid, s.Mode)
	}
	if _, err := os.Stat(filepath.Join(root, "v.sock_1024")); err == nil {
		t.Error("a second connection can be made")
	}
	if r := recordOf(t, l, "m"); r.PID != m.(*vm).PID() || r.Root != "" || len(r.Mounts) > 0 {
		t.Errorf("the record is %+v", r)
	}
	if err := m.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
	if n := statOf(t, l.RootFS).Nlink; n != 1 {
		t.Errorf("the image has %d links", n)
	}
}

// elsewhere returns a directory that is on another file system than the image.
func elsewhere(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "nex-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, err := filepath.Glob(dir + "/*/*"); err != nil || len(left) > 0 {
			t.Errorf("left in jailer.chroot_base: %v, %v", left, err)
		}
		_ = os.RemoveAll(dir)
	})
	return dir
}

// mountsIn lists what is mounted below a directory.
func mountsIn(t *testing.T, dir string) (found []string) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if at := strings.Fields(line)[1]; strings.HasPrefix(at, dir) {
			found = append(found, at)
		}
	}
	return found
}

func TestJailOnAnotherFileSystemHasMounts(t *testing.T) {
	l := jailedLauncher(t)
	l.Jail.ChrootBase, l.Jail.UID, l.Jail.GID = elsewhere(t), 12345, 12346
	m, err := l.Launch(t.Context(), "m")
	if err != nil {
		t.Fatal(err)
	}
	mounts := mountsIn(t, l.Jail.ChrootBase)
	if len(mounts) != 4 {
		t.Errorf("mounted: %v", mounts)
	}
	r := recordOf(t, l, "m")
	if r.Root != filepath.Join(l.Jail.ChrootBase, jailOf(t, l, "m")) {
		t.Errorf("the record has the root directory %q", r.Root)
	}
	for _, at := range mounts {
		if !slices.Contains(r.Mounts, at) {
			t.Errorf("%s is not in the record, %v", at, r.Mounts)
		}
	}
	kernel := filepath.Join(r.Root, "root", kernelFile)
	if f, err := os.OpenFile(kernel, os.O_WRONLY, 0); err == nil {
		_ = f.Close()
		t.Error("the image can be written to in the jail")
	}
	if s := statOf(t, filepath.Join(r.Root, "root", diskFile)); s.Uid != 12345 || s.Gid != 12346 {
		t.Errorf("the disk belongs to %d:%d", s.Uid, s.Gid)
	}
	if err := m.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
	if left := mountsIn(t, l.Jail.ChrootBase); len(left) > 0 {
		t.Errorf("still mounted: %v", left)
	}
}

// nodeVariable has what a process needs to be a node with one machine.
const nodeVariable = "NEX_TEST_NODE"

// nodeSpec is that.
type nodeSpec struct {
	Config      microvm.Config
	Jail        Jail
	Firecracker string
}

// beNode boots a machine with the id m, says so, and waits to be killed.
func beNode(text string) int {
	var spec nodeSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		fmt.Println(err)
		return 1
	}
	spec.Config.Log = slog.New(slog.DiscardHandler)
	l := &Launcher{Config: &spec.Config, Jail: &spec.Jail, Firecracker: spec.Firecracker, Boot: bootTime}
	m, err := l.Launch(context.Background(), "m")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("up", m.(*vm).PID())
	<-m.Gone() // nobody reads the link
	return 0
}

// TestSweepAfterTheNodeWasKilled: what the killed node's machine had outside of its
// directory is gone, and its process.
func TestSweepAfterTheNodeWasKilled(t *testing.T) {
	l := jailedLauncher(t)
	l.Jail.ChrootBase = elsewhere(t)
	config := *l.Config
	config.Log, config.Groups = nil, nil
	spec, err := json.Marshal(nodeSpec{config, *l.Jail, l.Firecracker})
	if err != nil {
		t.Fatal(err)
	}
	node := exec.Command("/proc/self/exe")
	node.Env = append(os.Environ(), nodeVariable+"="+string(spec))
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Process.Kill(); _ = node.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	var pid int
	if _, scanErr := fmt.Sscanf(line, "up %d", &pid); err != nil || scanErr != nil {
		t.Fatalf("the node says %q, %v", line, err)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil { // so that it does not end with its link
		t.Fatal(err)
	}
	if err := node.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = node.Wait() // killed
	if startOf(pid) == "" || len(mountsIn(t, l.Jail.ChrootBase)) == 0 {
		t.Fatal("there is nothing to sweep")
	}

	dir := filepath.Join(l.Records, "m")
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), nextest.Patience)
		defer cancel()
		if err := Sweep(ctx, dir); err != nil {
			t.Fatal(err)
		}
	}
	if startOf(pid) != "" {
		t.Errorf("process %d is alive", pid)
	}
	if left := mountsIn(t, l.Jail.ChrootBase); len(left) > 0 {
		t.Errorf("still mounted: %v", left)
	}
	if err := errors.Join(os.Remove(dir), os.RemoveAll(filepath.Join(l.Dir, "m"))); err != nil { // as the node does
		t.Error(err)
	}
}

// TestSweepKillsNobodyElse: the number of a process may be another's by now.
func TestSweepKillsNobodyElse(t *testing.T) {
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	dir := t.TempDir()
	for _, r := range []record{
		{PID: other.Process.Pid, Start: "1", Boot: bootID()},
		{PID: other.Process.Pid, Start: startOf(other.Process.Pid), Boot: "an earlier one"},
	} {
		if err := r.write(dir); err != nil {
			t.Fatal(err)
		}
		if err := Sweep(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	if startOf(other.Process.Pid) == "" {
		t.Error("it was killed")
	}
	if err := Sweep(t.Context(), t.TempDir()); err != nil {
		t.Errorf("a machine without a record: %v", err)
	}
}

func TestImageThatIsForItsOwnerOnlyIsRefused(t *testing.T) {
	l := jailedLauncher(t)
	secret := filepath.Join(t.TempDir(), "rootfs")
	makeFile(t, secret)
	if err := os.Chmod(secret, 0o600); err != nil {
		t.Fatal(err)
	}
	l.RootFS = secret
	if _, err := l.Launch(t.Context(), "m"); err == nil || !strings.Contains(err.Error(), "chmod o+r "+secret) {
		t.Errorf("got %v", err)
	}
}

func TestJailSettings(t *testing.T) {
	for _, c := range []struct {
		jail Jail
		kind cgroup.Kind
		want string
	}{
		{Jail{}, cgroup.Rlimits, ""},
		{Jail{Cgroup: []string{"cpuset.cpus=0-3", "cpuset.mems=0"}}, cgroup.V1, ""},
		{Jail{Cgroup: []string{"cpuset.cpus=0"}}, cgroup.V2, "AllowedCPUs"},
		{Jail{Cgroup: []string{"cpuset.cpus=0"}}, cgroup.Rlimits, "version 1"},
		{Jail{Cgroup: []string{"memory.limit_in_bytes=1"}}, cgroup.V1, "machine_template"},
		{Jail{Cgroup: []string{"cpuset.cpus"}}, cgroup.V1, "is not like"},
		{Jail{Cgroup: []string{"../cpuset.cpus=1"}}, cgroup.V1, "is not like"},
		{Jail{ChrootBase: "srv"}, cgroup.V1, "absolute"},
	} {
		err := c.jail.Check(c.kind)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v with %s: got %v, want %q", c.jail, c.kind, err, c.want)
		}
	}
}

// TestStandInRefusesWrongArguments: else it would prove nothing that the driver's are
// right.
func TestStandInRefusesWrongArguments(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the jailer takes root")
	}
	p := fcemu.Install(t, "", "")
	base := t.TempDir()
	right := []string{"--id", "m", "--exec-file", p.Firecracker, "--uid", "1234", "--gid", "1234", "--chroot-base-dir", base}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no user":           {append(right[:4:4], right[6:]...), "--uid is required"},
		"unknown":           {append(right[:10:10], "--node", "0"), "--node"},
		"twice":             {append(right[:10:10], "--id", "m"), "more than once"},
		"equals sign":       {append(right[:10:10], "--netns=/x"), "--netns=/x"},
		"bad id":            {append([]string{"--id", "a_b"}, right[2:]...), "invalid instance id"},
		"other program":     {append(right[:2:2], append([]string{"--exec-file", "/bin/true"}, right[4:]...)...), "must contain 'firecracker'"},
		"base is not there": {append(right[:8:8], "--chroot-base-dir", "/nonexistent"), "/nonexistent"},
		"cgroup":            {append(right[:10:10], "--cgroup", "cpuset.cpus"), "--cgroup"},
		"cgroup version":    {append(right[:10:10], "--cgroup-version", "3"), "version"},
		"parent cgroup":     {append(right[:10:10], "--parent-cgroup", "../up"), "parent"},
		"limit":             {append(right[:10:10], "--resource-limit", "files=1"), "--resource-limit"},
		"netns":             {append(right[:10:10], "--netns", "/nonexistent"), "/nonexistent"},
		"value missing":     {append(right[:10:10], "--netns"), "requires a value"},
	} {
		out, err := exec.Command(p.Jailer, c.args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: got %v, %s, want %q", name, err, out, c.want)
		}
	}
	link := filepath.Join(base, "firecracker", "m", "root", "kernel")
	if err := os.Symlink("/etc/passwd", link); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(p.Jailer, right...).CombinedOutput(); err == nil || !strings.Contains(string(out), "symbolic link") {
		t.Errorf("a link out of the jail: %v, %s", err, out)
	}
}

func TestProgramsAreAskedForTheirVersion(t *testing.T) {
	if got, err := Version(t.Context(), fcemu.Install(t, "", "").Firecracker); err != nil || got != "1.12.0" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := Version(t.Context(), fcemu.Install(t, "", "1.7.0").Firecracker); err == nil || !strings.Contains(err.Error(), "ACPI") {
		t.Errorf("an old one: %v", err)
	}
	if _, err := Version(t.Context(), "/nonexistent"); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("none: %v", err)
	}
}
