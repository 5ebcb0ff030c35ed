package machine_test

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nex/internal/nextest"
)

// rerun starts tests of this package in a process of their own, and returns it with
// what they write to file descriptor 3.
func rerun(t *testing.T, tests string, env ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	cmd := exec.Command("/proc/self/exe", "-test.run="+tests, "-test.v")
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(append(os.Environ(), nextest.ProgramsDir(), "TMPDIR="+t.TempDir()), env...) // which it may not get to remove
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close() // the child has its own
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, bufio.NewReader(r)
}

// TestAsOrdinaryUser runs the tests of confined machines as somebody who is not
// root.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this is no test as root")
	}
	if off, err := os.ReadFile("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"); err == nil && strings.TrimSpace(string(off)) == "1" {
		t.Skip("this host lets only root make user namespaces")
	}
	nextest.StaticAgent(t)
	nextest.GuestProgram(t)
	const user = 12345
	dir, err := os.MkdirTemp("", "user")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, user, user); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, filepath.Base(os.Args[0]))
	copyFile(t, "/proc/self/exe", program)
	cmd := exec.Command(program, "-test.run=Confined|Escapes|Probe|Launchers|OwnDirectory|BeforeTheirNode", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), nextest.ProgramsDir(), "TMPDIR="+dir, "HOME="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}, Pdeathsig: syscall.SIGKILL}
	output, err := cmd.CombinedOutput()
	for _, line := range strings.Split(string(output), "\n") {
		if strings.Contains(line, "--- ") && !strings.Contains(line, "/kill_the_agent") {
			t.Log(line)
		}
	}
	if err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
}
