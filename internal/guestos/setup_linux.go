package guestos

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	bootScript = "/etc/nex/boot.sh"
	resolvPath = "/etc/resolv.conf"
	hostsPath  = "/etc/hosts"
	hwrng      = "/dev/hwrng"
	// ownName is a guest's that has been given none.
	ownName = "nex"
	path    = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// seed is how many bytes of the host's randomness the kernel is given.
	seed = 64
	// off is how far the clock may be from the node's.
	off = time.Second
)

// marked reports whether a command line has the marker.
func marked(line string) bool {
	for word := range strings.FieldsSeq(line) {
		if word == Marker {
			return true
		}
	}
	return false
}

// setUp makes the rest of a system: name, environment, network, randomness, and
// what the image brings.
func (s Settings) setUp() error {
	os.Clearenv() // the kernel passes what it does not know of its command line
	for _, v := range [][2]string{{"PATH", path}, {"HOME", "/root"}, {"TMPDIR", "/tmp"}} {
		if err := os.Setenv(v[0], v[1]); err != nil {
			return err
		}
	}
	if err := errors.Join(os.MkdirAll("/tmp", 0o755), os.Chmod("/tmp", 0o777|fs.ModeSticky)); err != nil {
		say("make /tmp: %v", err)
	}
	name := ownName
	if s.Network != nil && s.Network.Hostname != "" {
		name = s.Network.Hostname
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		say("set host name: %v", err)
	}
	if err := writeHosts(hostsPath, name); err != nil {
		say("write %s: %v", hostsPath, err)
	}
	go addEntropy() // a device may take its time
	if err := linkUp("lo"); err != nil {
		return fmt.Errorf("bring up loopback: %w", err)
	}
	if s.Network != nil {
		if err := s.Network.up(); err != nil {
			return fmt.Errorf("set up network: %w", err)
		}
	}
	if len(s.DNS) > 0 {
		if err := writeResolvConf(resolvPath, s.resolvConf()); err != nil {
			return fmt.Errorf("set up DNS: %w", err)
		}
	}
	return runBootScript(bootScript)
}

// writeResolvConf writes through a symbolic link, whose directory it makes.
func writeResolvConf(path, text string) error {
	if target, err := os.Readlink(path); err == nil {
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// writeHosts gives the machine's own addresses names unless the image does.
func writeHosts(path, name string) error {
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 "+name+"\n"), 0o644)
}

// runBootScript runs what the image wants run before the agent takes work, if it
// has it.
func runBootScript(path string) error {
	about, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && about.Mode()&0o111 == 0 {
		return nil
	}
	if err == nil {
		// Its parent must not end before it, or another thread waits for it.
		goruntime.LockOSThread()
		defer goruntime.UnlockOSThread()
		cmd := exec.Command(path)
		cmd.Dir, cmd.Stdout, cmd.Stderr = "/", os.Stdout, os.Stderr
		err = cmd.Run()
	}
	if err != nil {
		return fmt.Errorf("boot script %s: %w", path, err)
	}
	return nil
}

// addEntropy passes randomness of the host on to the kernel, where there is a
// device for it.
func addEntropy() {
	f, err := os.Open(hwrng)
	if err != nil {
		return
	}
	defer f.Close()
	var pool struct { // rand_pool_info of the kernel
		bits, size int32
		data       [seed]byte
	}
	n, err := f.Read(pool.data[:])
	if err != nil {
		return // there is no device behind it
	}
	pool.bits, pool.size = int32(8*n), int32(n)
	random, err := os.OpenFile("/dev/random", os.O_WRONLY, 0)
	if err != nil {
		say("add randomness: %v", err)
		return
	}
	defer random.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, random.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&pool))); errno != 0 {
		say("add randomness: %v", errno)
	}
}

// SetClock sets the machine's clock if it is more than a second away from now,
// which it is after a pause; then what was random may be known, too. Without the
// right to do so it leaves the clock to whoever has it.
func SetClock(now time.Time) {
	if os.Geteuid() == 0 {
		setClock(now, time.Now(), settime, addEntropy)
	}
}

func settime(now time.Time) error {
	ts := unix.NsecToTimespec(now.UnixNano())
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}

// setClock is SetClock with what it needs of the kernel.
func setClock(now, own time.Time, set func(time.Time) error, refresh func()) {
	if now.Sub(own).Abs() <= off {
		return
	}
	if err := set(now); err != nil {
		say("set clock: %v", err)
		return
	}
	refresh()
}
