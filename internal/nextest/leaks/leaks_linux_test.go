package leaks_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/xid"
	"golang.org/x/sys/unix"

	"nex/internal/nextest/leaks"
)

// plantVariable makes the test binary a package whose tests leave something.
const plantVariable = "LEAKS_PLANT"

func TestMain(m *testing.M) {
	if name, ok := os.LookupEnv(plantVariable); ok {
		os.Exit(leaks.Run(planted(name)))
	}
	os.Exit(leaks.Run(m))
}

// planted are tests that pass and leave what their name says.
type planted string

// kept is not closed by the garbage collector.
var kept []io.Closer

func (p planted) Run() int {
	if err := plants[string(p)].plant(); err != nil {
		fmt.Println(err)
		return 3
	}
	return 0
}

// plants are what tests can leave, and how that is told.
var plants = map[string]struct {
	plant func() error
	told  string // a regular expression, "" if nothing is to be told
	root  bool
}{
	"nothing": {plant: func() error { return nil }},
	"what is waited for": {plant: func() error {
		dir, err := os.MkdirTemp("", "x")
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		_ = l.Close()
		return join(exec.Command("true").Run(), os.RemoveAll(dir))
	}},
	"goroutine": {plant: func() error { go func() { select {} }(); return nil }, told: `leaks: found unexpected goroutines`},
	"file": {plant: func() error {
		f, err := os.Open("/dev/null")
		kept = append(kept, f)
		return err
	}, told: `file descriptor \d+: /dev/null`},
	"socket": {plant: func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		kept = append(kept, l)
		return err
	}, told: `file descriptor \d+: socket:\[\d+\] port \d+`},
	"child":  {plant: func() error { return start("sleep", "60") }, told: `process \d+, "sleep 60" in state S`},
	"zombie": {plant: func() error { return start("true") }, told: `process \d+, "" in state Z`},
	"orphan": {plant: func() error {
		cmd := exec.Command("sh", "-c", "setsid sleep 60 >/dev/null 2>&1 &")
		cmd.Dir = os.Getenv("TMPDIR")
		return cmd.Run()
	}, told: `process (\d+), "sleep 60" in state S`},
	"temporary file": {plant: func() error {
		return os.WriteFile(filepath.Join(os.TempDir(), "left"), nil, 0o600)
	}, told: `the temporary file /.*/left`},
	"mount": {plant: func() error {
		dir, err := os.MkdirTemp("", "x")
		if err != nil {
			return err
		}
		return unix.Mount("leaks", dir, "tmpfs", 0, "size=64k")
	}, told: `the mount (/\S+)`, root: true},
	group: {plant: func() error {
		for _, above := range []string{"pids", "unified", ""} { // of version 1, of both, of version 2
			dir := filepath.Join("/sys/fs/cgroup", above)
			if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
				return os.MkdirAll(filepath.Join(dir, "nex", xid.New().String()), 0o755)
			}
		}
		return fmt.Errorf("no control groups")
	}, told: `the control group (/\S+/nex/\w{20})`, root: true},
}

func join(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// start starts a process that ends with this one, and does not wait for it.
func start(program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd.Start()
}

const group = "control group"

// TestEachLeakIsTold has packages that leave one thing each, and some that leave
// nothing. They wait a while for that to go, so they run at once.
func TestEachLeakIsTold(t *testing.T) {
	running := map[string]func(*testing.T) (output string, code int){}
	for name, p := range plants {
		if !p.root || os.Geteuid() == 0 {
			running[name] = begin(t, name)
		}
	}
	for name, end := range running {
		t.Run(name, func(t *testing.T) { told(t, name, end) })
	}
}

// begin starts a package that leaves something; what it returns waits for its end.
func begin(t *testing.T, name string) func(*testing.T) (output string, code int) {
	t.Helper()
	var output bytes.Buffer
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), plantVariable+"="+name)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func(t *testing.T) (string, int) {
		var failed *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &failed) {
			t.Error(err)
		}
		return output.String(), cmd.ProcessState.ExitCode()
	}
}

// told checks what a package says of what it left.
func told(t *testing.T, name string, end func(*testing.T) (string, int)) {
	output, code := end(t)
	told := plants[name].told
	if told == "" {
		if code != 0 || output != "" {
			t.Errorf("exit code %d\n%s", code, output)
		}
		return
	}
	found := regexp.MustCompile(told).FindStringSubmatch(output)
	if found == nil || code != 1 {
		t.Fatalf("exit code %d, want %q\n%s", code, told, output)
	}
	if others := strings.Count(output, "leaks: the tests left"); others > 1 && name != "mount" {
		t.Errorf("%d things are told\n%s", others, output)
	}
	if len(found) > 1 {
		tidy(t, name, found[1])
	}
}

// tidy ends what outlives the process that planted it.
func tidy(t *testing.T, name, what string) {
	var err error
	switch name {
	case "orphan":
		var pid int
		if pid, err = strconv.Atoi(what); err == nil {
			err = unix.Kill(pid, unix.SIGKILL)
		}
	case "mount":
		err = join(unix.Unmount(what, 0), os.RemoveAll(filepath.Dir(what)))
	case group:
		err = os.Remove(what)
		_ = os.Remove(filepath.Dir(what)) // others may have groups there
	}
	if err != nil {
		t.Error(err)
	}
}
