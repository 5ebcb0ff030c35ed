package firecracker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"time"

	"nex/internal/guest"
	"nex/internal/machine"
	"nex/internal/machine/microvm"
)

const (
	// apiTimeout bounds how long Firecracker may take until it answers, and until it
	// has done all that it is told.
	apiTimeout = 10 * time.Second
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
		if left := b.end(); left != nil { // by its directory it is found when the node starts again
			return nil, errors.Join(err, left)
		}
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
	m, err := b.Start(microvm.VMM{Cmd: b.command(), OverheadMiB: overheadMiB, End: b.end})
	if err != nil {
		return nil, err
	}
	if b.l.Jail == nil {
		return m, nil // it ends with the node
	}
	b.rec.PID, b.rec.Start = m.PID(), startOf(m.PID())
	if err := b.rec.write(b.Dir); err != nil {
		b.Log.Warn("Firecracker may outlive a node that is killed", "error", err)
	}
	return m, nil
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
	b.l.leave(b.user)
	return b.rec.remove(ctx)
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

// dial connects to the API.
func (b *boot) dial(ctx context.Context) (net.Conn, error) {
	dir, err := os.Open(b.root)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var d net.Dialer
	return d.DialContext(ctx, "unix", inDir(dir, apiSocket))
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
