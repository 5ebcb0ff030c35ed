package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"nex/internal/guest"
	"nex/internal/machine"
	"nex/internal/machine/microvm"
)

const (
	// apiTimeout bounds how long Firecracker may take until it answers, and until it
	// has done all that it is told.
	apiTimeout = 20 * time.Second
	// grace is how long a guest may take to end after it was asked to.
	grace = time.Second
	// endTimeout bounds the end of a machine that did not boot, and that of what a
	// machine has outside of its directory.
	endTimeout = 10 * time.Second
	// overheadMiB is what Firecracker may have of the host's memory besides the
	// guest's: it takes a few MiB, and the rest is for the cache of files. What passes
	// for it in tests takes most of that.
	overheadMiB = 256
)

// The names of files in the directory that Firecracker's paths are relative to.
const (
	apiSocket   = "api.sock"
	vsockSocket = "v.sock"
	logPipe     = "log"
	metricsPipe = "metrics"
)

// linkPort is the port of the host that an agent connects to.
const linkPort = guest.VsockPort

// guestCID is the address of every guest: each has a vsock of its own.
const guestCID = 3

var _ machine.Launcher = (*Launcher)(nil)

// vm is a running machine.
type vm struct {
	*microvm.Machine
	api *api
}

// boot is what there is of a machine besides what all microVMs have.
type boot struct {
	*microvm.Draft
	l    *Launcher
	root string // the directory that Firecracker's paths are relative to
	disk string // the path of the machine's own disk there
	line string // the kernel's command line

	uid, gid int // of Firecracker
	user     int // that the launcher keeps for this machine, 0 for none
	rec      record
	port     *port
	pipes    []*pipe
	api      *api
}

// Launch boots a machine and returns when its agent has connected. An error
// leaves nothing behind.
func (l *Launcher) Launch(ctx context.Context, id string) (machine.Machine, error) {
	draft, err := l.Begin(ctx, id)
	if err != nil {
		return nil, err
	}
	b := &boot{Draft: draft, l: l, root: draft.Dir, disk: draft.Disk, uid: os.Getuid(), gid: os.Getgid()}
	m, err := b.start()
	if err != nil {
		err = errors.Join(err, b.end()) // what is left is found by its record when the node starts again
		draft.Abandon()
		return nil, err
	}
	link, err := b.run(ctx, m.Gone())
	if err != nil {
		gone := end(ctx, m) // after which all that was printed is known
		if said := m.LastLine(); said != "" {
			err = fmt.Errorf("%w; the last it said is %q", err, said)
		}
		return nil, errors.Join(err, gone)
	}
	m.Connect(link)
	return &vm{m, b.api}, nil
}

// start makes all that Firecracker finds, and starts it. It waits for what it is told.
func (b *boot) start() (*microvm.Machine, error) {
	if err := b.prepare(); err != nil {
		return nil, err
	}
	b.api = newAPI(b.dial)
	return b.Start(microvm.VMM{Cmd: b.command(), OverheadMiB: overheadMiB, Placed: b.placed, End: b.end})
}

// placed records a process that outlives a node that is killed.
func (b *boot) placed(pid int) error {
	if b.l.Jail == nil {
		return nil // it ends with the node
	}
	b.rec.PID, b.rec.Start, b.rec.Boot = pid, startOf(pid), bootID()
	return b.rec.write(b.Records)
}

func (b *boot) prepare() (err error) {
	if b.line, err = microvm.CommandLine(b.NIC, false); err != nil {
		return err
	}
	b.line += " i8042.noaux i8042.nomux i8042.dumbkbd" // of the keyboard there are the keys for SendCtrlAltDel, and no more
	if b.l.Jail != nil {
		if err := b.makeJail(); err != nil {
			return fmt.Errorf("make jail: %w", err)
		}
	}
	if b.NIC != nil {
		if err := giveTap(b.NIC.NetNS, b.NIC.Tap, b.uid, b.gid); err != nil {
			return fmt.Errorf("let Firecracker use the tap %s: %w", b.NIC.Tap, err)
		}
	}
	for name, line := range map[string]func(string){logPipe: relayLog(b.Log), metricsPipe: relayMetrics(b.Log)} {
		p, err := openPipe(b.root, name, b.uid, b.gid, line)
		if err != nil {
			return err
		}
		b.pipes = append(b.pipes, p)
	}
	b.port, err = openPort(b.root, vsockSocket+"_"+strconv.Itoa(linkPort), b.uid, b.gid)
	return err
}

// end ends and removes what prepare made, outside of the machine's directory too.
func (b *boot) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	if b.api != nil {
		b.api.close()
	}
	if b.port != nil {
		b.port.close()
	}
	for _, p := range b.pipes {
		p.close()
	}
	if err := b.rec.remove(ctx, b.Records); err != nil {
		return err // and its user stays its own
	}
	b.l.users.Return(b.user)
	return nil
}

// command is that of Firecracker, in the network namespace of its machine.
func (b *boot) command() *exec.Cmd {
	args := []string{b.l.Firecracker, "--api-sock", apiSocket, "--id", b.ID}
	switch {
	case b.l.Jail != nil:
		args = b.jailed()
	case b.NIC != nil && b.NIC.NetNS != "":
		args = append([]string{"nsenter", "--net=" + b.NIC.NetNS, "--"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = b.root
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	return cmd
}

// dial connects to the API, at the socket that Firecracker made and at no other that
// it may have put there instead.
func (b *boot) dial(ctx context.Context) (net.Conn, error) {
	fd, err := unix.Open(filepath.Join(b.root, apiSocket), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open "+apiSocket, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || int(st.Uid) != b.uid && st.Uid != 0 {
		return nil, fmt.Errorf("%s is no socket of Firecracker's", apiSocket)
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd))
}

// run tells Firecracker what the machine is, has it started, and waits for its agent.
func (b *boot) run(ctx context.Context, gone <-chan struct{}) (net.Conn, error) {
	if err := b.tell(ctx, gone); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.l.Boot, fmt.Errorf("the agent in the machine did not connect within %v (agent_handshake_timeout_ms)", b.l.Boot))
	defer cancel()
	link, err := b.port.accept(ctx, gone)
	switch {
	case err == nil:
		return link, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return nil, fmt.Errorf("wait for the agent in the machine: %w", err)
}

// tell says what the machine is made of, and starts it.
func (b *boot) tell(ctx context.Context, gone <-chan struct{}) error {
	ctx, cancel := context.WithTimeoutCause(ctx, apiTimeout, fmt.Errorf("firecracker did not do what it is told within %v", apiTimeout))
	defer cancel()
	err := b.api.await(ctx, gone)
	for _, r := range b.requests() {
		if err != nil {
			break
		}
		err = b.api.put(ctx, r.path, r.body)
	}
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

// request is a change that Firecracker is asked for.
type request struct {
	path string
	body any
}

// requests are all that a machine is made of, in order.
func (b *boot) requests() []request {
	kernel, initramfs, rootfs := b.image()
	list := []request{
		{"/logger", logger{Path: logPipe, Level: "Info", ShowLevel: true}},
		{"/metrics", metrics{Path: metricsPipe}},
		{"/machine-config", machineConfig{CPUs: b.l.CPUs, MemoryMiB: b.l.MemoryMiB}},
		{"/boot-source", bootSource{Kernel: kernel, Initrd: initramfs, Args: b.line}},
		{"/drives/rootfs", drive{ID: "rootfs", Path: rootfs, Root: true, ReadOnly: true}},
		{"/drives/disk", drive{ID: "disk", Path: b.disk, Limiter: b.l.DriveLimit}},
	}
	if b.NIC != nil {
		list = append(list,
			request{"/network-interfaces/eth0", networkInterface{ID: "eth0", Tap: b.NIC.Tap, MAC: b.NIC.MAC.String(), In: b.l.NetworkLimit, Out: b.l.NetworkLimit}},
			request{"/mmds/config", mmdsConfig{Version: "V2", Interfaces: []string{"eth0"}}},
			request{"/mmds", map[string]any{"nex": map[string]string{"machine": b.ID}}})
	}
	return append(list,
		request{"/vsock", vsock{CID: guestCID, Path: vsockSocket}},
		request{"/entropy", entropy{}},
		request{"/actions", action{instanceStart}})
}

// Destroy asks the guest to end, and kills Firecracker if it does not at once.
func (m *vm) Destroy(ctx context.Context) error {
	return m.Kill(ctx, func() {
		_ = m.Link().Close()
		ask, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		if m.api.put(ask, "/actions", action{sendCtrlAltDel}) != nil {
			return // it has ended, or hangs
		}
		select {
		case <-m.Gone():
		case <-ask.Done():
		}
	})
}
