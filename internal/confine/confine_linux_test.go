package confine_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"nex/internal/confine"
	"nex/internal/nextest"
)

func TestMain(m *testing.M) { nextest.Main(m) }

// probeWithout runs a probe where system calls fail as on a kernel that does not
// have them.
func probeWithout(t *testing.T, c confine.Config, calls ...uintptr) (r confine.Report, words string, err error) {
	t.Helper()
	f := confine.FilterOf(unix.ENOSYS, calls...)
	agent := nextest.StaticAgent(t)
	var out, said bytes.Buffer
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: nobody else is to have this thread
		program := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			done <- err
			return
		}
		if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program))); errno != 0 {
			done <- errno
			return
		}
		cmd := exec.Command(agent)
		cmd.Dir, cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = t.TempDir(), &syscall.SysProcAttr{}, &out, &said
		release, err := c.ApplyProbe(cmd)
		if err != nil {
			done <- err
			return
		}
		defer release()
		done <- cmd.Run()
	}()
	if err = nextest.Await(t, done, "the probe"); err == nil {
		err = json.Unmarshal(out.Bytes(), &r)
	}
	return r, said.String(), err
}

// TestKernelWithoutParts: each is refused with its reason, or with best effort
// reported.
func TestKernelWithoutParts(t *testing.T) {
	for part, tc := range map[string]struct {
		call uintptr
		want string
	}{
		"landlock":      {unix.SYS_LANDLOCK_CREATE_RULESET, "landlock: this kernel has no Landlock"},
		"landlock rule": {unix.SYS_LANDLOCK_RESTRICT_SELF, "landlock: apply rules: function not implemented"},
		"seccomp":       {unix.SYS_SECCOMP, "seccomp: this kernel takes no filter"},
	} {
		t.Run(part, func(t *testing.T) {
			if _, words, err := probeWithout(t, confine.Config{Network: confine.NoNetwork}, tc.call); err == nil || !strings.Contains(words, "sandbox: "+tc.want) {
				t.Errorf("refused with %v, %q; want %s", err, words, tc.want)
			}
			r, words, err := probeWithout(t, confine.Config{Network: confine.NoNetwork, BestEffort: true}, tc.call)
			if err != nil || len(r.Missing) != 1 || !strings.HasPrefix(r.Missing[0], tc.want) {
				t.Errorf("missing %q, %v, %s", r.Missing, err, words)
			}
		})
	}
	t.Run("mount namespaces", func(t *testing.T) { // best effort has no half of a root directory
		for _, effort := range []bool{false, true} {
			if _, words, err := probeWithout(t, confine.Config{Network: confine.NoNetwork, BestEffort: effort}, unix.SYS_FSOPEN); err == nil || !strings.Contains(words, "make root: function not implemented") {
				t.Errorf("best effort %t: %v, %q", effort, err, words)
			}
		}
	})
	t.Run("nothing", func(t *testing.T) {
		if r, words, err := probeWithout(t, confine.Config{Network: confine.HostNetwork}); err != nil || len(r.Missing) > 0 {
			t.Errorf("%q, %v, %s", r.Missing, err, words)
		}
	})
}

func TestFreeUsers(t *testing.T) {
	for text, want := range map[string][2]int{
		"         0          0 4294967295\n":                                   {confine.FirstUser, confine.UserCount},
		"         0     100000      65536\n":                                   {65536 - 8192, 4096},
		"         0       1000          1\n         1     100000      65536\n": {65537 - 8192, 4096},
		"         0       1000          1\n":                                   {0, 0},
		"":                                                                     {0, 0},
	} {
		path := filepath.Join(t.TempDir(), "uid_map")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if first, count := confine.FreeUsers(path); first != want[0] || count != want[1] {
			t.Errorf("%q: %d users from %d on, want %v", text, count, first, want)
		}
	}
}

// TestDeniedCalls: none is twice in the list, and the filter is short enough.
func TestDeniedCalls(t *testing.T) {
	seen := map[uintptr]bool{}
	for _, call := range confine.Denied {
		if seen[call] {
			t.Errorf("call %d is denied twice", call)
		}
		seen[call] = true
	}
	t.Logf("%d calls are denied, by %d instructions", len(confine.Denied), len(confine.Rules()))
	if n := len(confine.Rules()); n > 4096 {
		t.Errorf("%d instructions", n)
	}
}
