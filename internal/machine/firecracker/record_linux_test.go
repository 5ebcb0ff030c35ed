package firecracker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"nex/internal/nextest"
)

// jailedVariable has the directory that a process makes its root.
const jailedVariable = "NEX_TEST_JAILED"

// beJailed changes the root directory, says so, and waits to be killed or for the end of its input.
func beJailed(root string) int {
	if err := unix.Chroot(root); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("in")
	_, _ = os.Stdin.Read(make([]byte, 1)) // whatever it is
	return 0
}

// TestSweepKillsWhatIsInTheJail: also where the node was killed before it had written down
// the number of the process that it started, and nothing that has another root directory.
func TestSweepKillsWhatIsInTheJail(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("changing the root directory takes root")
	}
	base := t.TempDir()
	processes := map[string]*exec.Cmd{}
	ended := map[string]chan error{}
	for _, id := range []string{"m", "other"} {
		root := filepath.Join(base, id, "root")
		if err := os.MkdirAll(root, 0o700); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{jailedVariable + "=" + root}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said, err := bufio.NewReader(out).ReadString('\n')
		done := make(chan error, 1)
		processes[id], ended[id] = cmd, done
		go func() { done <- cmd.Wait(); close(done) }()
		t.Cleanup(func() { _ = in.Close(); _ = cmd.Process.Kill(); <-done })
		if said != "in\n" || err != nil {
			t.Fatalf("process says %q, %v", said, err)
		}
	}
	records := filepath.Join(t.TempDir(), "m")
	if err := errors.Join(os.Mkdir(records, 0o700), record{Jail: filepath.Join(base, "m", "root")}.write(records)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), nextest.Patience)
	defer cancel()
	if err := Sweep(ctx, records); err != nil {
		t.Fatal(err)
	}
	if pid := processes["m"].Process.Pid; startOf(pid) != "" {
		t.Errorf("process %d in the jail is alive", pid)
	}
	if startOf(processes["other"].Process.Pid) == "" {
		t.Error("a process in another jail was killed")
	}
}

// TestRecordOfOthersIsRefused: what is not written by this user for this machine has nothing undone.
func TestRecordOfOthersIsRefused(t *testing.T) {
	base := t.TempDir()
	kept := filepath.Join(base, "else", "kept")
	if err := os.MkdirAll(kept, 0o700); err != nil {
		t.Fatal(err)
	}
	jail := filepath.Join(base, "m")
	for name, spoil := range map[string]func(dir, file string) error{
		"root of another":   func(dir, _ string) error { return record{Root: kept}.write(dir) },
		"climbs":            func(dir, _ string) error { return record{Root: jail + "/../else/m"}.write(dir) },
		"mount of another":  func(dir, _ string) error { return record{Mounts: []string{kept}}.write(dir) },
		"cgroup of another": func(dir, _ string) error { return record{Groups: []string{kept}}.write(dir) },
		"jail of another":   func(dir, _ string) error { return record{Jail: "/"}.write(dir) },
		"link":              func(_, file string) error { return errors.Join(os.Rename(file, file+"2"), os.Symlink(file+"2", file)) },
		"pipe":              func(_, file string) error { return errors.Join(os.Remove(file), unix.Mkfifo(file, 0o600)) },
		"for all to write":  func(_, file string) error { return os.Chmod(file, 0o666) },
		"large":             func(_, file string) error { return os.Truncate(file, maxRecord+1) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "m")
			err := errors.Join(os.Mkdir(dir, 0o700), record{Root: jail}.write(dir), os.MkdirAll(jail, 0o700))
			if err := errors.Join(err, spoil(dir, filepath.Join(dir, recordFile))); err != nil {
				t.Fatal(err)
			}
			if err := Sweep(t.Context(), dir); err == nil {
				t.Error("it is believed")
			}
			for _, d := range []string{kept, jail} {
				if _, err := os.Stat(d); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
