package nextest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nex/internal/guest"
)

// doomedVariable tells a test that it is a node which will be killed, and where
// its machines are to be.
const doomedVariable = "NEX_TEST_DOOMED_NODE"

// orphaned kills a process that has launched a machine, as kill -9 would a node,
// and does what a node does that starts then.
func (k Machines) orphaned(t *testing.T) {
	if dir := os.Getenv(doomedVariable); dir != "" {
		k.doomed(t, dir)
	}
	GuestProgram(t) // builds what the other process finds built
	s := k.stand(t)
	node, said := again(t, doomedVariable+"="+s.dir)
	var number int
	var id string
	if _, err := fmt.Fscan(said, &number, &id); err != nil {
		t.Fatal("the node does not tell of its machine: ", err)
	}
	fd, err := unix.PidfdOpen(number, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := node.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = node.Wait() // it was killed
	if k.Sweep != nil {
		k.Sweep(t, s.dir)
	}
	ended := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(ended, int(k.Boot.Milliseconds())); n != 1 {
		t.Errorf("the machine outlives its node: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(s.dir, id)); err != nil {
		t.Error(err)
	}
	s.nothingLeft(t, id)
}

// doomed is the node that will be killed.
func (k Machines) doomed(t *testing.T, dir string) {
	s := k.stand(t)
	s.dir, s.Launcher = dir, k.New(t, dir)
	m, err := s.Launch(t.Context(), "orphan-"+strings.ReplaceAll(strings.ToLower(filepath.Base(filepath.Dir(dir))), "_", "-"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), k.Boot)
	defer cancel()
	if _, err := guest.Greet(ctx, m.Link()); err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintln(os.NewFile(3, "pipe"), s.pid(t, m), m.ID()) // the other end finds out
	select {}
}

// again starts the running test in a process of its own, and returns that with
// what it writes to file descriptor 3.
func again(t *testing.T, env ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	var pattern []string
	for name := range strings.SplitSeq(t.Name(), "/") {
		pattern = append(pattern, "^"+regexp.QuoteMeta(name)+"$")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run="+strings.Join(pattern, "/"), "-test.v")
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(append(os.Environ(), ProgramsDir(), "TMPDIR="+t.TempDir()), env...) // which it may not get to remove
	cmd.ExtraFiles = []*os.File{w}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	err = cmd.Start()
	_ = w.Close() // the other process has its own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd, bufio.NewReader(r)
}
