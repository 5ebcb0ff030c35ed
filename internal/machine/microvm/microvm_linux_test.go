package microvm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"nex"
	"nex/internal/nextest"
)

func TestMain(m *testing.M) { nextest.Main(m) }

func TestCommandLine(t *testing.T) {
	nic := &NIC{
		Addr: netip.MustParsePrefix("192.168.127.2/24"), Gateway: netip.MustParseAddr("192.168.127.1"),
		Nameservers: []netip.Addr{netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("9.9.9.9")},
	}
	overTCP := *nic
	overTCP.DNSOverTCP = true
	const network = " ip=192.168.127.2::192.168.127.1:255.255.255.0::eth0:off nex.dns=1.1.1.1,9.9.9.9"
	for _, c := range []struct {
		nic      *NIC
		emulated bool
		ends     string
	}{{nil, false, " panic=-1"}, {nic, false, network}, {nil, true, " 8250.nr_uarts=1"}, {nic, true, network}, {&overTCP, true, network + " nex.dns.tcp=1"}} {
		line, err := CommandLine(c.nic, c.emulated)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(line, "nex.guest=1 quiet console=ttyS0 ") || !strings.HasSuffix(line, c.ends) ||
			strings.Contains(line, "tsc_early_khz=") != c.emulated || strings.Contains(line, "nomodule") {
			t.Errorf("command line %q", line)
		}
	}
}

func TestClockOfTheProcessor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cpuinfo")
	for text, want := range map[string]int{"model name\t: x\ncpu MHz\t\t: 2596.130\ncpu MHz : 1\n": 2596130, "cpu MHz : fast\n": 0, "": 0} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if khz, err := clockKHz(path); khz != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d kHz, %v", text, khz, err)
		}
	}
}

// TestBeginThatFailsLeavesNothing: no records either.
func TestBeginThatFailsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	blocked := filepath.Join(dir, "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := &Config{DiskMiB: 256, Dir: dir, Records: filepath.Join(dir, "records"), Templates: filepath.Join(blocked, "disks"), Log: slog.New(slog.DiscardHandler)}
	if _, err := c.Begin(t.Context(), "m"); err == nil {
		t.Fatal("a disk was made")
	}
	for _, left := range []string{filepath.Join(c.Dir, "m"), filepath.Join(c.Records, "m")} {
		if _, err := os.Lstat(left); err == nil {
			t.Errorf("%s is left", left)
		}
	}
}

// TestDiskIsSparseAndItsOwn: each machine's disk is a copy that takes no room for
// what is empty, of a template that is made once and never written to.
func TestDiskIsSparseAndItsOwn(t *testing.T) {
	dir := t.TempDir()
	c := &Config{DiskMiB: 256, Templates: filepath.Join(dir, "disks")}
	for _, name := range []string{"a", "b"} {
		path := filepath.Join(dir, name)
		if err := c.makeDisk(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Size() != 256<<20 || info.Mode().Perm() != 0o600 {
			t.Fatalf("disk %v, %v", info, err)
		}
		if taken := info.Sys().(*syscall.Stat_t).Blocks * 512; taken == 0 || taken > 16<<20 {
			t.Errorf("the empty disk takes %d bytes", taken)
		}
		if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := os.ReadDir(c.Templates)
	if err != nil || len(list) != 1 {
		t.Fatalf("templates %v, %v", list, err)
	}
	if err := c.makeDisk(t.Context(), filepath.Join(dir, "a")); err == nil {
		t.Error("a disk that is there was overwritten")
	}
	fresh := filepath.Join(dir, "c")
	if err := c.makeDisk(t.Context(), fresh); err != nil {
		t.Fatal(err)
	}
	magic := make([]byte, 2)
	f, err := os.Open(fresh)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(magic, 1024+56); err != nil || !bytes.Equal(magic, []byte{0x53, 0xef}) {
		t.Errorf("it is no ext4: %x, %v", magic, err)
	}
}

// TestConsoleOfAHostileGuest: lines without end, and lines in floods, are cut short.
func TestConsoleOfAHostileGuest(t *testing.T) {
	var log bytes.Buffer
	c := &console{log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	flood := strings.Repeat("x", 1<<20) + "\n" + strings.Repeat("line\r\n", 100_000) + "Kernel panic - not syncing: why\n\x1b[2Jlast"
	c.relay(strings.NewReader(flood))
	if log.Len() > 200<<10 || !strings.Contains(log.String(), "too many") || strings.Contains(log.String(), "\x1b") {
		t.Errorf("%d bytes went to the log", log.Len())
	}
	if got := c.lastLine(); got != "Kernel panic - not syncing: why" {
		t.Errorf("the last line is %q", got)
	}
	c = &console{log: c.log}
	c.relay(io.MultiReader(strings.NewReader("first\n"), strings.NewReader("second")))
	if got := c.lastLine(); got != "second" {
		t.Errorf("the last line is %q", got)
	}
}

// network is one that notes what is asked of it.
type network struct{ said []string }

func (n *network) Attach(_ context.Context, id, _ string) (*NIC, error) {
	n.said = append(n.said, "attach "+id)
	return &NIC{}, nil
}
func (n *network) Close() error           { return nil }
func (n *network) Enable(id string) error { n.said = append(n.said, "enable "+id); return nil }
func (n *network) Detach(_ context.Context, id, _ string) error {
	n.said = append(n.said, "detach "+id)
	return nil
}

// TestWhatIsAskedOfAMachine: limits beyond the machine are refused before its
// network is let in; what did not start leaves nothing.
func TestWhatIsAskedOfAMachine(t *testing.T) {
	n := &network{}
	dir := t.TempDir()
	c := &Config{MemoryMiB: 128, DiskMiB: 32, Dir: dir, Records: filepath.Join(dir, "records"), Templates: filepath.Join(dir, "disks"), Network: n, Log: slog.New(slog.DiscardHandler)}
	d, err := c.Begin(t.Context(), "m")
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{cfg: c, nic: d.NIC, admit: func() error { n.said = append(n.said, "own"); return nil }}
	for _, r := range []nex.Resources{{MemoryMiB: 129}, {DiskMiB: 33}} {
		if err := m.Admit(r); nex.CodeOf(err) != nex.Exhausted {
			t.Errorf("%+v: %v", r, err)
		}
	}
	d.Abandon()
	d.Abandon()
	if _, err := os.Stat(filepath.Join(dir, "m")); err == nil {
		t.Error("the directory is left")
	}
	if got := strings.Join(n.said, ", "); got != "attach m, detach m" {
		t.Errorf("asked of the network: %s", got)
	}
}

func TestImages(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	kernel := put("vmlinux", "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00\x01\x00\x00\x00"+strings.Repeat("\x00", 40))
	initramfs := put("initramfs", "070701")
	rootfs := put("rootfs.ext4", strings.Repeat("\x00", 1024+56)+"\x53\xef")
	other, empty := put("other", "hello, world"), put("empty", "")
	packed := put("rootfs.ext4.gz", "\x1f\x8b\x08")
	for _, c := range []struct {
		cfg   Config
		wants []string
	}{
		{Config{}, []string{"kernel_filepath"}},
		{Config{Kernel: other}, []string{"kernel_filepath", other, "no ELF kernel"}},
		{Config{Kernel: kernel, Initramfs: initramfs + "x"}, []string{"initramfs_filepath", "no such file"}},
		{Config{Kernel: kernel, Initramfs: other}, []string{"initramfs_filepath", other, "no archive"}},
		{Config{Kernel: kernel, Initramfs: initramfs, RootFS: dir}, []string{"rootfs_filepath", "no file, or empty"}},
		{Config{Kernel: kernel, Initramfs: initramfs, RootFS: empty}, []string{"rootfs_filepath", "no file, or empty"}},
		{Config{Kernel: kernel, Initramfs: initramfs, RootFS: other}, []string{"rootfs_filepath", "no ext4 file system"}},
		{Config{Kernel: kernel, Initramfs: initramfs, RootFS: packed}, []string{"rootfs_filepath", packed, "gunzip"}},
	} {
		for _, want := range c.wants {
			if err := c.cfg.Check(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		}
	}
	if err := (&Config{Kernel: kernel, Initramfs: initramfs, RootFS: rootfs}).Check(); err != nil {
		t.Error(err)
	}
}

func TestPrograms(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	put := func(path, script string, mode os.FileMode) string {
		t.Helper()
		if err := os.WriteFile(path, []byte(script), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	put(filepath.Join(dir, "vmm"), "no program", 0o644)
	path := put(filepath.Join(other, "vmm"), "#!/bin/sh\necho 1.2\n", 0o755)
	t.Chdir(other)
	if got := FindProgram("vmm", []string{dir, "."}); got != path {
		t.Errorf("found %q, want %q", got, path)
	}
	if got := FindProgram("vmm", []string{dir}); got != "" {
		t.Errorf("found %q, which is not executable", got)
	}
	if got := FindProgram("sh", nil); got != "" {
		t.Errorf("found %q, where nobody said to look", got)
	}
	if said, err := AskVersion(t.Context(), path); err != nil || said != "1.2\n" {
		t.Errorf("it says %q, %v", said, err)
	}
}

// TestVersionsAreNotWaitedFor: a program that leaves its output to another is no VMM.
func TestVersionsAreNotWaitedFor(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "vmm")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nsleep 1000 &\necho $! > "+dir+"/pid\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := AskVersion(t.Context(), path)
	data, readErr := os.ReadFile(filepath.Join(dir, "pid"))
	if readErr != nil {
		t.Fatal(readErr)
	}
	pid, convErr := strconv.Atoi(strings.TrimSpace(string(data)))
	if convErr != nil {
		t.Fatal(convErr)
	}
	if killErr := syscall.Kill(pid, syscall.SIGKILL); killErr != nil {
		t.Error(killErr)
	}
	if !errors.Is(err, exec.ErrWaitDelay) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}
