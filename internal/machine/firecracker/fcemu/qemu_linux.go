package fcemu

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// qemu is a machine that runs.
type qemu struct {
	control net.Conn // of QMP, its own protocol

	mu      sync.Mutex // writes to control
	replies chan error // of commands
}

// startQEMU boots a machine and calls ended with how it ended.
func startQEMU(program string, c config, ended func(error)) (*qemu, error) {
	args, err := arguments(c)
	if err != nil {
		return nil, err
	}
	link, linkFar, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer linkFar.Close()
	control, controlFar, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer controlFar.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr // the guest's console, like Firecracker's
	cmd.ExtraFiles = []*os.File{linkFar, controlFar}              // 3 and 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	q := &qemu{control: control, replies: make(chan error, 1)}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // QEMU ends with the thread that started it
		err := cmd.Start()
		started <- err
		if err == nil {
			ended(cmd.Wait())
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	b := &bridge{guest: link, socket: fmt.Sprintf("%s_%d", c.Vsock, linkPort)}
	go q.listen(b)
	return q, q.command("qmp_capabilities", nil)
}

// socketPair returns a connection, and its other end for a child.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	near, far := os.NewFile(uintptr(fds[0]), ""), os.NewFile(uintptr(fds[1]), "")
	defer near.Close()
	conn, err := net.FileConn(near)
	return conn, far, err
}

// arguments returns the command line of QEMU for a machine.
func arguments(c config) ([]string, error) {
	line, err := kernelLine(c)
	if err != nil {
		return nil, err
	}
	args := []string{
		// A small buffer for translated code: the node bounds the memory of all this.
		"-M", "microvm", "-accel", "tcg,tb-size=32", "-cpu", "max",
		"-m", fmt.Sprint(max(c.MemoryMiB, 128)), "-smp", fmt.Sprint(max(c.CPUs, 1)),
		"-global", "virtio-mmio.force-legacy=false",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", c.Boot.Kernel, "-append", line,
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", "socket,id=control,fd=4", "-mon", "chardev=control,mode=control",
		"-device", "i8042", // the keyboard that Ctrl-Alt-Del comes from
	}
	if c.Boot.Initrd != "" {
		args = append(args, "-initrd", c.Boot.Initrd)
	}
	for i, d := range c.Drives {
		args = append(args, "-drive", fmt.Sprintf("if=none,id=d%d,format=raw,readonly=%s,file.locking=off,file=%s", i, onOff(d.ReadOnly), strings.ReplaceAll(d.Path, ",", ",,")),
			"-device", fmt.Sprintf("virtio-blk-device,drive=d%d", i))
	}
	for i, n := range c.NICs {
		args = append(args, "-netdev", fmt.Sprintf("tap,id=n%d,ifname=%s,script=no,downscript=no", i, n.Tap),
			"-device", fmt.Sprintf("virtio-net-device,netdev=n%d,status=off,guest_announce=off,mac=%s", i, n.MAC))
	}
	if c.Vsock != "" {
		args = append(args, "-device", "virtio-serial-device", "-chardev", "socket,id=link,fd=3", "-device", "virtserialport,id=linkport,chardev=link,name=nex.link")
	}
	if c.Entropy {
		args = append(args, "-device", "virtio-rng-device")
	}
	return args, nil
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// kernelLine returns the kernel's command line: what was given, without what QEMU
// cannot have, with what Firecracker adds for the root device, and with the speed
// of the processor's counter, which a guest cannot measure under software emulation.
func kernelLine(c config) (string, error) {
	words := slices.DeleteFunc(strings.Fields(c.Boot.Args), func(w string) bool { return w == "noapic" || w == "pci=off" })
	for _, d := range c.Drives {
		if d.Root && d.ReadOnly {
			words = append(words, "root=/dev/vda", "ro")
		} else if d.Root {
			words = append(words, "root=/dev/vda", "rw")
		}
	}
	khz, err := counterKHz()
	return strings.Join(append(words, fmt.Sprintf("tsc_early_khz=%d", khz), "tsc=reliable"), " "), err
}

// counterKHz returns the speed that /proc/cpuinfo tells.
func counterKHz() (int, error) {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "cpu MHz"); ok {
			var mhz float64
			if _, err := fmt.Sscanf(value, " : %f", &mhz); err != nil {
				return 0, err
			}
			return int(mhz * 1000), nil
		}
	}
	return 0, errors.New("/proc/cpuinfo does not tell the processor's speed")
}

// message is one of QMP's.
type message struct {
	Return json.RawMessage `json:"return"`
	Error  *struct{ Desc string }
	Event  string
	Data   struct{ Open bool }
}

// listen reads what QEMU says until it ends. That the guest opens its port is what
// a connection of its vsock would be.
func (q *qemu) listen(b *bridge) {
	lines := bufio.NewScanner(q.control)
	for lines.Scan() {
		var m message
		if json.Unmarshal(lines.Bytes(), &m) != nil {
			continue
		}
		switch {
		case m.Error != nil:
			q.replies <- errors.New(m.Error.Desc)
		case m.Return != nil:
			q.replies <- nil
		case m.Event == "VSERPORT_CHANGE" && m.Data.Open:
			b.connect()
		case m.Event == "VSERPORT_CHANGE":
			b.hangUp()
		}
	}
	close(q.replies)
}

// command has QEMU do something. One at a time.
func (q *qemu) command(name string, arguments any) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	request := map[string]any{"execute": name}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := json.NewEncoder(q.control).Encode(request); err != nil {
		return err
	}
	err, running := <-q.replies
	if !running {
		return errors.New("the machine has ended")
	}
	return err
}

func (q *qemu) ctrlAltDel() error {
	var keys []map[string]string
	for _, key := range []string{"ctrl", "alt", "delete"} {
		keys = append(keys, map[string]string{"type": "qcode", "data": key})
	}
	return q.command("send-key", map[string]any{"keys": keys})
}

func (q *qemu) pause(yes bool) error {
	if yes {
		return q.command("stop", nil)
	}
	return q.command("cont", nil)
}
