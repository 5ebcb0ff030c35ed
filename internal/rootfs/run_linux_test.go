package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nex/internal/nextest"
)

// steps returns options that build from Debian's busybox with build steps, and what they print.
func steps(t *testing.T, commands ...string) (Options, *bytes.Buffer) {
	t.Helper()
	nextest.Root(t)
	printed := &bytes.Buffer{}
	return Options{
		Base: nextest.Debian(t, "openrc"), Agent: nextest.StaticAgent(t), Size: 80 << 20, Sum: true,
		Output: filepath.Join(t.TempDir(), "rootfs.ext4"), Run: commands, Printed: printed,
	}, printed
}

func TestBuildSteps(t *testing.T) {
	o, printed := steps(t,
		"echo to out; echo to err >&2; mkdir -p /srv/data && echo kept > /srv/data/file && chown 1234:5678 /srv/data/file && chmod 4750 /srv/data/file",
		"ln /srv/data/file /srv/other; ln -s data /srv/link; mkfifo /srv/pipe; rm /etc/fstab; chown nex /srv/data; (sleep 1000 &) ; cat /srv/link/file")
	r, err := Build(t.Context(), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	fsck(t, o.Output)
	if got := printed.String(); got != "to out\nto err\nkept\n" {
		t.Errorf("printed %q", got)
	}
	for request, wants := range map[string][]string{
		"stat /srv/data/file": {"Mode:  04750", "User:  1234   Group:  5678", "Links: 2", "mtime: 0x00000000"},
		"cat /srv/other":      {"kept\n"},
		"stat /srv/data":      {"User:  1000"},
		"stat /srv/link":      {`Fast link dest: "data"`},
		"stat /srv/pipe":      {"Type: FIFO"},
		"stat /dev/null":      {"Type: character special", "01:03"}, // of the base
		"stat /bin/sh":        {"Type: symlink"},
		"stat " + AgentPath:   {"Mode:  0755"},
	} {
		got := debugfs(t, o.Output, request)
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s says\n%s\nwant %q in it", request, got, want)
			}
		}
	}
	if got := debugfs(t, o.Output, "stat /etc/fstab"); strings.Contains(got, "Inode:") {
		t.Error("/etc/fstab is still there")
	}
	if r.Start != ByOpenRC {
		t.Errorf("started %s", r.Start)
	}
	again := builder(t, "077", input{Base: o.Base, Agent: o.Agent, Size: o.Size, Run: o.Run, Output: filepath.Join(t.TempDir(), "again.ext4")})
	if sum := sumOf(t, again, "TZ=Asia/Kolkata", "TMPDIR="+t.TempDir()); sum != r.SHA256 {
		t.Errorf("a second build has the sum %s, the first %s", sum, r.SHA256)
	}
}

// TestStepsAreConfined: a step is root of the image, and of nothing else.
func TestStepsAreConfined(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("host's"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, printed := steps(t, strings.Join([]string{
		"id -u", "pwd", "hostname", "echo $HOME $PPID $$",
		"cat " + secret + " 2>/dev/null && echo sees the host",
		"mknod /sda b 8 0 2>/dev/null && echo makes devices",
		"mount -t tmpfs none /mnt 2>/dev/null && echo mounts",
		"chroot / /bin/true 2>/dev/null && echo changes root",
		"hostname other 2>/dev/null && echo names",
		"echo 1 2>/dev/null > /proc/sys/vm/drop_caches && echo drops caches",
		"date -s 2001-01-01 2>&1 | grep -q 'not permitted' || echo sets the clock",
		"grep -c : /proc/net/dev",
		"grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t\\n' '  '; echo",
		"[ $(ls -d /proc/[0-9]* | wc -l) -lt 5 ] && echo alone",
		"env | grep -v '^\\(PATH\\|HOME\\|TERM\\|PWD\\|SHLVL\\|OLDPWD\\|_\\)='",
		"true",
	}, "\n"))
	t.Setenv("SECRET_OF_HOST", "x")
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatalf("%v\n%s", err, printed)
	}
	if got := printed.String(); !strings.HasPrefix(got, "0\n/\nbuild\n/root 0 1\n1\n") || !strings.HasSuffix(got, "\nalone\n") || strings.Count(got, "\n") != 7 ||
		!strings.Contains(got, "NoNewPrivs: 1") || !strings.Contains(got, "Seccomp: 2") || !strings.Contains(got, "CapEff: 00000000800001fb CapBnd: 00000000800001fb") {
		t.Errorf("printed\n%s", got)
	}
}

// TestLinksDoNotLeadStepsOut: what is put over /dev and /proc stays in the tree.
func TestLinksDoNotLeadStepsOut(t *testing.T) {
	o, _ := steps(t, "echo $(ls /etc | head -n1) > /result")
	outside := t.TempDir()
	evil := filepath.Join(t.TempDir(), "evil.tar")
	base, err := os.ReadFile(o.Base)
	if err != nil {
		t.Fatal(err)
	}
	tr := emptyTree(t)
	if err := tr.addLayer(t.Context(), bytes.NewReader(base)); err != nil {
		t.Fatal(err)
	}
	tr.layer++
	for _, name := range []string{"/dev", "/proc"} {
		if err := tr.put(name, symlink(outside)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(evil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tr.writeTar(t.Context(), f, func(int64) {}), f.Close()); err != nil {
		t.Fatal(err)
	}
	o.Base = evil
	_, err = Build(t.Context(), o) // whether it works is the image's business
	t.Log(err)
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("the host has %v", left)
	}
}

func TestStepsThatFail(t *testing.T) {
	for name, c := range map[string]struct {
		commands []string
		limit    time.Duration
		wants    []string
	}{
		"exit code":  {[]string{"true", "echo one; echo two >&2; exit 3", "touch /never"}, 0, []string{"build step 2 of 3", "exit 3", "exit status 3", "one\ntwo"}},
		"not there":  {[]string{"no-such-program"}, 0, []string{"exit status 127", "not found"}},
		"many lines": {[]string{"seq 1 1000; exit 1"}, 0, []string{"981\n", "\n1000"}},
		"too long":   {[]string{"sleep 1000 & trap '' TERM INT; echo begins; while true; do sleep 1; done"}, 2 * time.Second, []string{"did not end within 2s", "begins"}},
	} {
		t.Run(name, func(t *testing.T) {
			o, printed := steps(t, c.commands...)
			o.RunTimeout = c.limit
			temp := t.TempDir()
			t.Setenv("TMPDIR", temp)
			_, err := Build(t.Context(), o)
			for _, want := range c.wants {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("ended with %v, want %q in it", err, want)
				}
			}
			if name == "many lines" && (strings.Contains(err.Error(), "980\n") || !strings.Contains(printed.String(), "1\n2\n")) {
				t.Errorf("told %v", err)
			}
			for _, dir := range []string{temp, filepath.Dir(o.Output)} {
				if left, _ := os.ReadDir(dir); len(left) > 0 {
					t.Errorf("left %v in %s", left, dir)
				}
			}
		})
	}
}

// begun is a writer that calls a function when something was written.
type begun func()

func (b begun) Write(p []byte) (int, error) { b(); return len(p), nil }

// TestStepsEndWithTheirBuild: whoever is leaked fails the package's tests.
func TestStepsEndWithTheirBuild(t *testing.T) {
	o, _ := steps(t, "sleep 1000 & sleep 1000 & echo begins; wait")
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.Printed = begun(cancel)
	_, err := Build(ctx, o)
	left, _ := os.ReadDir(temp)
	if !errors.Is(err, context.Canceled) || len(left) > 0 {
		t.Errorf("ended with %v, left %v", err, left)
	}
}

func TestStepsWithNetwork(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "from the host\n") // the test sees what comes
			_ = c.Close()                               // was written to
		}
	}()
	defer func() { _ = l.Close(); <-answered }()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	for _, network := range []bool{false, true} {
		o, printed := steps(t, "nc 127.0.0.1 "+port+" < /dev/null; [ -s /etc/resolv.conf ] && ! grep -q agent /etc/resolv.conf && echo resolves; true")
		o.RunNetwork = network
		if _, err := Build(t.Context(), o); err != nil {
			t.Fatalf("%v\n%s", err, printed)
		}
		if got := strings.Contains(printed.String(), "from the host"); got != network {
			t.Errorf("with network %v: printed %q", network, printed)
		}
		if got := debugfs(t, o.Output, "cat /etc/resolv.conf"); !strings.Contains(got, "# The agent") {
			t.Errorf("resolv.conf is %q", got)
		}
	}
}

func TestStepsThatCannotBe(t *testing.T) {
	nextest.Root(t)
	base := filepath.Join(t.TempDir(), "base.tar")
	for _, entries := range [][]string{nil, {"bin/sh=not executable"}, {"bin/", "bin/sh->sh"}} {
		if err := os.WriteFile(base, archive(t, entries...), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Build(t.Context(), Options{Base: base, Agent: nextest.StaticAgent(t), Output: filepath.Join(t.TempDir(), "x"), Run: []string{"true"}})
		if err == nil || !strings.Contains(err.Error(), "no /bin/sh") {
			t.Errorf("%q: %v", entries, err)
		}
	}
}

// TestTreeInADirectory: a tree that goes to a directory comes back.
func TestTreeInADirectory(t *testing.T) {
	nextest.Root(t)
	const acl = "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"
	const capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	when := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o751, Uid: 3},
		{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o2500, Uid: 70000, Gid: 4_000_000_000},
		{Typeflag: tar.TypeReg, Name: "d/acl", Mode: 0o640, PAXRecords: map[string]string{xattrKey + aclAccess: acl}},
		{Typeflag: tar.TypeReg, Name: "d/cap", Mode: 0o4755, Uid: 5, PAXRecords: map[string]string{xattrKey + "security.capability": capability, xattrKey + "user.note": "n"}},
		{Typeflag: tar.TypeLink, Name: "e", Linkname: "d/cap"},
		{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "/etc/passwd", Mode: 0o777, Uid: 6},
		{Typeflag: tar.TypeFifo, Name: "p", Mode: 0o622},
		{Typeflag: tar.TypeBlock, Name: "d/disk", Mode: 0o660, Devmajor: 8, Devminor: 1},
	} {
		h.ModTime, h.Format = when, tar.FormatPAX
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tr := emptyTree(t)
	if err := tr.addLayer(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	var before, after bytes.Buffer
	if err := tr.writeTar(t.Context(), &before, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := tr.unpack(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if names, _ := os.ReadDir(filepath.Join(dir, "d")); slices.ContainsFunc(names, func(e os.DirEntry) bool { return e.Name() == "disk" }) {
		t.Error("a device was made")
	}
	if err := tr.pack(t.Context(), dir, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := tr.writeTar(t.Context(), &after, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	was, is := headers(t, &before), headers(t, &after)
	if !slices.Equal(was, is) {
		t.Errorf("the tree came back as\n%s\nwas\n%s", strings.Join(is, "\n"), strings.Join(was, "\n"))
	}
}

// headers returns what an archive says of each of its entries.
func headers(t *testing.T, r io.Reader) (lines []string) {
	t.Helper()
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s %c %o %d:%d %q %d:%d %s %q", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, h.Devmajor, h.Devminor, h.ModTime.UTC(), h.PAXRecords))
	}
}
