//go:build linux

package chaos

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program of this run. It dies with the driver.
type process struct {
	cmd   *exec.Cmd
	lines chan string   // what it says
	ended chan struct{} // closed when it has, and err is set
	err   error
}

// launch starts a program with a log of its own.
func launch(path string, env []string, log io.Writer) (*process, error) {
	p := &process{cmd: exec.Command(path), lines: make(chan string, 16), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	started := make(chan error, 1)
	go p.run(out, started)
	return p, <-started
}

// run stays on one thread: the kernel kills a child that asked for it when the
// thread that forked it ends.
func (p *process) run(out io.Reader, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	defer close(p.ended)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		select {
		case p.lines <- lines.Text():
		default: // nobody listens
		}
	}
	p.err = p.cmd.Wait()
}

// signal reports whether the process was there to get it.
func (p *process) signal(s syscall.Signal) bool { return p.cmd.Process.Signal(s) == nil }

// kill ends the process at once and waits for that.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// terminate asks the process to end and waits for that; it returns how it ended.
func (p *process) terminate(patience time.Duration) error {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return p.err
	case <-time.After(patience):
		return fmt.Errorf("it has not ended %s after SIGTERM", patience)
	}
}

// hears waits for a line that begins with a word, and returns the rest of it.
func (p *process) hears(word string, patience time.Duration) ([]string, error) {
	deadline := time.After(patience)
	for {
		select {
		case line := <-p.lines:
			if f := strings.Fields(line); len(f) > 0 && f[0] == word {
				return f[1:], nil
			}
		case <-p.ended:
			return nil, errors.Join(errors.New("it ended"), p.err)
		case <-deadline:
			return nil, fmt.Errorf("it did not say %q in %s", word, patience)
		}
	}
}

// seen is a process as /proc shows it.
type seen struct {
	pid  int
	cwd  string
	args []string
}

func (s seen) String() string { return fmt.Sprintf("%d %q in %s", s.pid, s.args, s.cwd) }

// processesOf lists the processes whose working directory or command is below a
// directory.
func processesOf(dir string) []seen {
	found, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
	var list []seen
	for _, p := range found {
		pid, _ := strconv.Atoi(filepath.Base(p))
		cwd, _ := os.Readlink(filepath.Join(p, "cwd")) // empty if it has just ended
		cmdline, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		s := seen{pid, cwd, strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")}
		if pid != os.Getpid() && (strings.HasPrefix(cwd, dir) || strings.Contains(string(cmdline), dir)) {
			list = append(list, s)
		}
	}
	return list
}

// openFiles counts the file descriptors of a process.
func openFiles(pid int) int {
	fds, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)) // none if it has ended
	return len(fds)
}
