package native

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// shimWord is the only argument of a program that is to become a service.
	shimWord = "become-service"
	// orderFD is where it reads as what, and complaintFD where it says why it did
	// not; the doors follow.
	orderFD, complaintFD = 3, 4
	// dispensable is how much rather the kernel kills a service than its agent
	// when memory runs out: in thousandths of all memory.
	dispensable = 250
	// noCore is the limit with which there is no core file, nor does the host's
	// program for core files start: that it does with a limit of 0.
	noCore = 1
)

// order says what to become. It goes through a pipe: others may read the
// arguments of a process, and the environment of a service is not for a program
// that is not it yet.
type order struct {
	Path   []byte
	Argv   [][]byte
	Env    [][]byte
	Bounds bounds
}

// bounds are the limits of one process; 0 is none.
type bounds struct {
	Doors  int // how many files lead to where the service is limited
	Files  uint64
	File   uint64 // bytes of a file
	Memory uint64 // bytes of private memory
	PIDs   uint64 // of this user
}

// viaShim has this program started again, to limit itself and then become the
// one that is meant.
func (g program) viaShim(b bounds, doors []*os.File) (*os.Process, error) {
	told, err := json.Marshal(order{Path: []byte(g.path), Argv: bytesOf(g.argv), Env: bytesOf(g.attr.Env), Bounds: b})
	if err != nil {
		return nil, err
	}
	orders, tell, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer tell.Close()
	heard, complaint, err := os.Pipe()
	if err != nil {
		_ = orders.Close() // nothing was read
		return nil, err
	}
	defer heard.Close()
	attr := g.attr
	attr.Env = []string{} // nil is that of the agent
	attr.Files = slices.Concat(g.attr.Files, []*os.File{orders, complaint}, doors)
	process, err := os.StartProcess("/proc/self/exe", []string{os.Args[0], shimWord}, &attr)
	_, _ = orders.Close(), complaint.Close() // they are the shim's
	if err != nil {
		return nil, err
	}
	_, err = tell.Write(told)
	err = errors.Join(err, tell.Close())
	said, readErr := io.ReadAll(heard) // until it is the service, or is no more
	if err = errors.Join(err, readErr); err == nil && len(said) == 0 {
		return process, nil
	}
	_ = process.Kill()    // it ends by itself, if it has not
	_, _ = process.Wait() // killed
	if len(said) > 0 {
		err = g.complained(string(said))
	}
	return nil, err
}

func bytesOf(texts []string) (all [][]byte) {
	for _, t := range texts {
		all = append(all, []byte(t))
	}
	return all
}

func textsOf(all [][]byte) (texts []string) {
	for _, b := range all {
		texts = append(texts, string(b))
	}
	return texts
}

// complained makes an error of "STEP: ERRNO". That of the last step is the one
// that [os.StartProcess] would have given.
func (g program) complained(text string) error {
	step, number, _ := strings.Cut(text, ": ")
	n, err := strconv.Atoi(number)
	if err != nil {
		return errors.New(text)
	}
	if errno := syscall.Errno(n); step != lastStep {
		return fmt.Errorf("%s: %w", step, errno)
	}
	return &fs.PathError{Op: "fork/exec", Path: g.path, Err: syscall.Errno(n)}
}

// lastStep is what a shim does last.
const lastStep = "execute"

// Shim is for the beginning of main: if args are those of a program that is to
// become a service it does so, and returns the exit code only if it could not.
func Shim(args []string) (code int, was bool) {
	if len(args) != 2 || args[1] != shimWord {
		return 0, false
	}
	var o order
	step, err := "read what to become", json.NewDecoder(os.NewFile(orderFD, "order")).Decode(&o)
	if err == nil {
		step, err = become(o)
	}
	cause := err.Error()
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		cause = strconv.Itoa(int(errno))
	}
	_, _ = os.NewFile(complaintFD, "complaint").WriteString(step + ": " + cause) // there is nobody else to tell
	return 1, true
}

// become limits this process and executes a program. It returns only if it
// cannot, and tells at which step.
func become(o order) (step string, err error) {
	goruntime.LockOSThread() // for what the kernel keeps for each thread, as the signal mask
	path, argv, env, b := string(o.Path), textsOf(o.Argv), textsOf(o.Env), o.Bounds
	// The agent asked for this thread of a process that had no other. The one that
	// executes the program is the one that stays.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return "end with the agent", err
	}
	for _, l := range []struct {
		step     string
		resource int
		most     uint64
	}{
		{"limit core files", unix.RLIMIT_CORE, noCore},
		{"limit open files", unix.RLIMIT_NOFILE, b.Files},
		{"limit the size of files", unix.RLIMIT_FSIZE, b.File},
		{"limit memory", unix.RLIMIT_DATA, b.Memory},
		{"limit processes", unix.RLIMIT_NPROC, b.PIDs},
	} {
		if l.most == 0 {
			continue
		}
		if err := lower(l.resource, l.most); err != nil {
			return l.step, err
		}
	}
	beDispensable()
	if err := unix.CloseRange(orderFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		closeOnExec() // the kernel is older than 5.11
	}
	// From here on this process may have no room for another thread: nothing
	// may make the scheduler want one.
	zero := [1]byte{'0'}
	for door := range b.Doors {
		_, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(complaintFD+1+door), uintptr(unsafe.Pointer(&zero)), 1)
		if errno != 0 {
			return "enter cgroup", errno
		}
	}
	resetSignals()
	return lastStep, syscall.Exec(path, argv, env)
}

// lower sets a limit, or leaves one that is lower already.
func lower(resource int, most uint64) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(resource, &l); err != nil {
		return err
	}
	l.Max = min(l.Max, most)
	l.Cur = l.Max
	return syscall.Setrlimit(resource, &l)
}

// beDispensable has the kernel kill this process before the agent. Where /proc
// cannot be written to it stays as it is.
func beDispensable() {
	const path = "/proc/self/oom_score_adj"
	own, err := os.ReadFile(path)
	if err != nil {
		return
	}
	if score, err := strconv.Atoi(strings.TrimSpace(string(own))); err == nil {
		_ = os.WriteFile(path, []byte(strconv.Itoa(min(score+dispensable, 1000))), 0) // see above
	}
}

// closeOnExec keeps all files but the standard ones from what is executed.
func closeOnExec() {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, f := range list {
		if fd, err := strconv.Atoi(f.Name()); err == nil && fd >= orderFD {
			syscall.CloseOnExec(fd)
		}
	}
}

// resetSignals lets every signal through to this thread, and has none of them
// ignored. Those that Go handles are reset by executing.
func resetSignals() {
	var defaults [64]byte // handler, flags, restorer and mask, none
	for signal := uintptr(1); signal <= 64; signal++ {
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, signal, uintptr(unsafe.Pointer(&defaults)), 0, 8, 0, 0) // fails for SIGKILL and SIGSTOP
	}
	var none uint64
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0) // cannot fail
}
