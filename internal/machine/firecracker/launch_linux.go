package firecracker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"nex"
	"nex/internal/cgroup"
	"nex/internal/machine"
	"nex/internal/undo"
)

const (
	// apiTimeout bounds how long Firecracker may take until it answers, and how
	// long for all that it is told before the start.
	apiTimeout = 10 * time.Second
	// grace is how long a guest may take to end after it was asked to.
	grace = time.Second
	// endTimeout bounds the end of a machine that did not boot, and of its parts.
	endTimeout = 10 * time.Second
)

// The names of files in the root directory of a machine's paths.
const (
	apiSocket   = "api.sock"
	vsockSocket = "v.sock"
	logPipe     = "log"
	metricsPipe = "metrics"
	diskFile    = "disk.ext4"
)

// linkPort is the port of the host that an agent connects to: guest.VsockPort.
const linkPort = 1024

// guestCID is the address of every guest: each has a vsock of its own.
const guestCID = 3

var _ machine.Launcher = (*Launcher)(nil)

// vm is a running machine.
type vm struct {
	*machine.Child
	b    *boot
	link net.Conn
}

// boot is a machine from its directory to its end.
type boot struct {
	l    *Launcher
	id   string
	dir  string // the machine's
	root string // the directory that Firecracker's paths are relative to
	log  *slog.Logger
	tail tail // of the console

	uid, gid int // of Firecracker
	user     int // that the launcher keeps for this machine, 0 for none
	rec      record
	nic      *NIC
	group    *cgroup.Group
	port     *port
	pipes    []*pipe
	api      *api
}

// Launch boots a machine and returns when its agent has connected. An error
// leaves nothing behind.
func (l *Launcher) Launch(ctx context.Context, id string) (machine.Machine, error) {
	b := &boot{l: l, id: id, dir: filepath.Join(l.Dir, id), log: l.Log.With("machine", id), uid: os.Getuid(), gid: os.Getgid()}
	b.root = b.dir
	var u undo.Stack
	defer u.Unwind()
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make machine directory: %w", err)
	}
	u.Push(b.abandon)
	if err := b.prepare(); err != nil {
		return nil, err
	}
	child, err := b.start()
	if err != nil {
		return nil, fmt.Errorf("start firecracker: %w", err)
	}
	u.Keep() // the child does all that when it ends
	m := &vm{Child: child, b: b}
	if err := b.run(ctx, m); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		gone := m.Kill(ctx, func() {})
		return nil, errors.Join(fmt.Errorf("%w%s", err, b.tail.text()), gone)
	}
	return m, nil
}

// prepare makes all that Firecracker finds when it starts.
func (b *boot) prepare() (err error) {
	if b.l.Jail != nil {
		if err := b.makeJail(); err != nil {
			return fmt.Errorf("make jail: %w", err)
		}
	}
	if b.l.Groups != nil {
		if b.group, err = b.l.Groups.Make(b.id); err != nil {
			return err
		}
	}
	if b.l.NIC != nil {
		if b.nic, err = b.l.NIC(b.id, b.dir); err != nil {
			return fmt.Errorf("make network: %w", err)
		}
	}
	disk := filepath.Join(b.root, diskFile)
	if err := b.l.Disk(disk); err != nil {
		return fmt.Errorf("make the machine's disk: %w", err)
	}
	if err := errors.Join(os.Chmod(disk, 0o600), os.Chown(disk, b.uid, b.gid)); err != nil {
		return err
	}
	for name, line := range map[string]func(string){logPipe: relayLog(b.log), metricsPipe: relayMetrics(b.log)} {
		p, err := openPipe(b.root, name, b.uid, b.gid, line)
		if err != nil {
			return err
		}
		b.pipes = append(b.pipes, p)
	}
	b.port, err = openPort(b.root, vsockSocket+"_"+strconv.Itoa(linkPort), b.uid, b.gid)
	return err
}

// end ends and removes all that there is of the machine but its process and its
// directory.
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
	var errs []error
	if b.group != nil {
		errs = append(errs, b.group.Kill(ctx), b.group.Remove(ctx))
	}
	if b.nic != nil {
		errs = append(errs, b.nic.Remove())
	}
	b.l.leave(b.user)
	return errors.Join(append(errs, b.rec.remove(ctx))...)
}

// abandon removes a machine that did not start.
func (b *boot) abandon() {
	if err := b.end(); err != nil { // by the directory it is found when the node starts again
		b.log.Error("What is left of a machine cannot be removed now: it is tried again when the node starts", "error", err)
		return
	}
	_ = os.RemoveAll(b.dir) // the launch's own error is the one to report
}

// start starts Firecracker, which waits for what it is told.
func (b *boot) start() (*machine.Child, error) {
	args := []string{b.l.Firecracker, "--api-sock", apiSocket, "--id", b.id}
	switch {
	case b.l.Jail != nil:
		args = b.jailed()
	case b.nic != nil && b.nic.NetNS != "":
		args = append([]string{"nsenter", "--net=" + b.nic.NetNS, "--"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = b.root
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	return machine.StartChild(machine.ChildConfig{
		ID: b.id, Cmd: cmd, Dir: b.dir, Log: b.log, Relay: b.console, Place: b.place, End: b.end,
	})
}

// place puts the process where it is limited, and records it.
func (b *boot) place(pid int) error {
	b.rec.PID, b.rec.Start = pid, startOf(pid)
	if err := b.rec.write(b.dir); err != nil {
		return err
	}
	if b.group == nil {
		return nil
	}
	return b.group.Add(pid)
}

// run tells Firecracker what the machine is, starts it, and waits for its agent.
func (b *boot) run(ctx context.Context, m *vm) error {
	b.api = newAPI(b.dial)
	if err := b.tell(ctx, m.Gone()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.l.Boot, fmt.Errorf("the guest's agent did not connect within %v", b.l.Boot))
	defer cancel()
	conn, err := b.port.accept(ctx, m.Gone())
	switch {
	case err == nil:
		m.link = conn
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return fmt.Errorf("wait for the guest's agent: %w", err)
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

// tell configures the machine and starts it.
func (b *boot) tell(ctx context.Context, gone <-chan struct{}) error {
	ctx, cancel := context.WithTimeoutCause(ctx, apiTimeout, fmt.Errorf("firecracker does not answer within %v", apiTimeout))
	defer cancel()
	err := b.api.await(ctx, gone)
	for _, r := range b.requests() {
		if err != nil {
			break
		}
		err = b.api.put(ctx, r.path, r.body)
	}
	if ctx.Err() != nil {
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
	image := b.image()
	line := "quiet reboot=k panic=-1 console=ttyS0 i8042.noaux i8042.nomux i8042.dumbkbd"
	if b.nic != nil {
		line += " " + b.nic.Args
	}
	list := []request{
		{"/logger", logger{Path: logPipe, Level: "Info", ShowLevel: true}},
		{"/metrics", metrics{Path: metricsPipe}},
		{"/machine-config", machineConfig{CPUs: cmp.Or(b.l.CPUs, defaultCPUs), MemoryMiB: cmp.Or(b.l.MemoryMiB, defaultMemoryMiB)}},
		{"/boot-source", bootSource{Kernel: image.Kernel, Initrd: image.Initramfs, Args: line}},
		{"/drives/rootfs", drive{ID: "rootfs", Path: image.RootFS, Root: true, ReadOnly: true}},
		{"/drives/disk", drive{ID: "disk", Path: diskFile, Limiter: b.l.DriveLimit}},
	}
	if b.nic != nil {
		list = append(list,
			request{"/network-interfaces/eth0", networkInterface{ID: "eth0", Tap: b.nic.Tap, MAC: b.nic.MAC, In: b.l.NetworkLimit, Out: b.l.NetworkLimit}},
			request{"/mmds/config", mmdsConfig{Version: "V2", Interfaces: []string{"eth0"}}},
			request{"/mmds", map[string]any{"nex": map[string]string{"machine": b.id}}})
	}
	return append(list,
		request{"/vsock", vsock{CID: guestCID, Path: vsockSocket}},
		request{"/entropy", entropy{}},
		request{"/actions", action{instanceStart}})
}

// console reads what the guest prints, and Firecracker itself before it has a log.
func (b *boot) console(output io.Reader) {
	readLines(output, func(line string) {
		if line = strings.ToValidUTF8(line, "?"); line != "" {
			b.tail.add(line)
			b.log.Debug("Console", "text", line)
		}
	})
}

func (m *vm) Link() net.Conn { return m.link }

// Admit opens the network, and sets the machine's limits.
func (m *vm) Admit(r nex.Resources) error {
	if m.b.nic != nil {
		if err := m.b.nic.Admit(); err != nil {
			return fmt.Errorf("open the network of machine %s: %w", m.ID(), err)
		}
	}
	return nil // the agent does what the guest's kernel can; the machine's size bounds the rest
}

// Usage tells what the whole machine uses.
func (m *vm) Usage() (nex.Usage, error) {
	if m.b.group == nil {
		return nex.Usage{}, nil
	}
	return m.b.group.Usage()
}

// Hits tells that no limits were met: the guest's kernel knows of them.
func (m *vm) Hits() (cgroup.Hits, error) { return cgroup.Hits{}, nil }

// Destroy asks the guest to end, and kills Firecracker if it does not at once.
func (m *vm) Destroy(ctx context.Context) error {
	return m.Kill(ctx, func() {
		_ = m.link.Close()
		ask, cancel := context.WithTimeout(context.Background(), grace)
		defer cancel()
		if m.b.api.put(ask, "/actions", action{sendCtrlAltDel}) != nil {
			return // it has ended, or hangs
		}
		select {
		case <-m.Gone():
		case <-ask.Done():
		}
	})
}
