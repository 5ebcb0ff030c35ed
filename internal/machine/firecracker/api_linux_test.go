package firecracker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"nex/internal/machine/firecracker/fcemu"
	"nex/internal/nextest"
)

// serve starts an emulator that boots nothing and returns a client of it.
func serve(t *testing.T) *api {
	t.Helper()
	p := fcemu.Install(t, "", "")
	dir := t.TempDir()
	cmd := exec.Command(p.Firecracker, "--api-sock", "api.sock", "--id", "test")
	cmd.Dir = dir
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { defer close(gone); _ = cmd.Wait() }() // killed
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-gone })
	a := newAPI(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dir, "api.sock"))
	})
	t.Cleanup(a.close)
	ctx, cancel := context.WithTimeout(t.Context(), nextest.Patience)
	defer cancel()
	if err := a.await(ctx, gone); err != nil {
		t.Fatal(err)
	}
	return a
}

// emptyFile makes a file that is a kernel or a disk as far as requests go.
func emptyFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRequestsFitTheAPI(t *testing.T) {
	a, file := serve(t), emptyFile(t)
	bucket := &RateLimiter{
		Bandwidth: &TokenBucket{OneTimeBurst: 1 << 20, RefillTime: 100, Size: 1 << 20},
		Ops:       &TokenBucket{RefillTime: 100, Size: 1000},
	}
	for _, r := range []struct {
		path string
		body any
	}{
		{"/logger", logger{Path: file, Level: "Warning", ShowLevel: true}},
		{"/metrics", metrics{Path: file}},
		{"/machine-config", machineConfig{CPUs: 2, MemoryMiB: 256}},
		{"/boot-source", bootSource{Kernel: file, Initrd: file, Args: "quiet"}},
		{"/drives/rootfs", drive{ID: "rootfs", Path: file, Root: true, ReadOnly: true}},
		{"/drives/overlay", drive{ID: "overlay", Path: file, Limiter: bucket}},
		{"/network-interfaces/eth0", networkInterface{ID: "eth0", Tap: "lo", MAC: "06:00:ac:10:00:02", In: bucket, Out: bucket}},
		{"/mmds/config", mmdsConfig{Version: "V2", Interfaces: []string{"eth0"}}},
		{"/mmds", map[string]any{"latest": map[string]any{"nex": map[string]any{"machine": "m"}}}},
		{"/vsock", vsock{CID: 3, Path: "v.sock"}},
		{"/entropy", entropy{}},
	} {
		if err := a.put(t.Context(), r.path, r.body); err != nil {
			t.Error(err)
		}
	}
	var got machineConfig
	if err := a.get(t.Context(), "/machine-config", &got); err != nil || got != (machineConfig{CPUs: 2, MemoryMiB: 256}) {
		t.Errorf("machine-config is %+v, %v", got, err)
	}
	var info instanceInfo
	if err := a.get(t.Context(), "/", &info); err != nil || info != (instanceInfo{ID: "test", State: "Not started", Version: "1.12.0"}) {
		t.Errorf("instance is %+v, %v", info, err)
	}
}

// TestWrongRequestsAreRefused: what the driver must never send is refused by the
// emulator, or else it would prove nothing.
func TestWrongRequestsAreRefused(t *testing.T) {
	a, file := serve(t), emptyFile(t)
	type fields map[string]any
	root := fields{"drive_id": "root", "path_on_host": file, "is_root_device": true, "is_read_only": true}
	if err := a.put(t.Context(), "/drives/root", root); err != nil {
		t.Fatal(err)
	}
	if err := a.put(t.Context(), "/metrics", metrics{Path: file}); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]struct {
		path string
		body any
		want string
	}{
		"path that is not there":          {"/machine", fields{}, "invalid request method"},
		"path with more parts":            {"/drives/a/b", root, "invalid request method"},
		"field that is not there":         {"/machine-config", fields{"vcpu_count": 1, "mem_size_mib": 128, "ht_enabled": true}, "ht_enabled"},
		"field missing":                   {"/machine-config", fields{"vcpu_count": 1}, "mem_size_mib"},
		"too many processors":             {"/machine-config", fields{"vcpu_count": 64, "mem_size_mib": 128}, "vcpu_count"},
		"number as text":                  {"/machine-config", fields{"vcpu_count": "2", "mem_size_mib": 128}, "vcpu_count"},
		"number with a fraction":          {"/machine-config", fields{"vcpu_count": 1.5, "mem_size_mib": 128}, "vcpu_count"},
		"no memory":                       {"/machine-config", fields{"vcpu_count": 1, "mem_size_mib": 0}, "memory size"},
		"kernel that is not there":        {"/boot-source", fields{"kernel_image_path": "/nonexistent"}, "kernel_image_path"},
		"initramfs that is not there":     {"/boot-source", fields{"kernel_image_path": file, "initrd_path": "/nonexistent"}, "initrd_path"},
		"disk that is not there":          {"/drives/d", fields{"drive_id": "d", "path_on_host": "/nonexistent", "is_root_device": false, "is_read_only": true}, "block device"},
		"two ids":                         {"/drives/d", fields{"drive_id": "e", "path_on_host": file, "is_root_device": false, "is_read_only": true}, "does not match"},
		"two roots":                       {"/drives/d", fields{"drive_id": "d", "path_on_host": file, "is_root_device": true, "is_read_only": true}, "root"},
		"id with a hyphen":                {"/drives/a-b", fields{"drive_id": "a-b", "path_on_host": file, "is_root_device": false, "is_read_only": true}, "invalid id"},
		"limiter with a wrong field":      {"/drives/d", fields{"drive_id": "d", "path_on_host": file, "is_root_device": false, "is_read_only": true, "rate_limiter": fields{"iops": fields{}}}, "iops"},
		"bucket without its time":         {"/drives/d", fields{"drive_id": "d", "path_on_host": file, "is_root_device": false, "is_read_only": true, "rate_limiter": fields{"ops": fields{"size": 1}}}, "refill_time"},
		"tap that is not there":           {"/network-interfaces/eth0", fields{"iface_id": "eth0", "host_dev_name": "nosuchtap"}, "nosuchtap"},
		"metadata without a network":      {"/mmds/config", fields{"version": "V2", "network_interfaces": []string{"eth0"}}, "eth0"},
		"metadata of another version":     {"/mmds/config", fields{"version": "V3", "network_interfaces": []string{}}, "version"},
		"guest with the host's id":        {"/vsock", fields{"guest_cid": 2, "uds_path": "v.sock"}, "guest_cid"},
		"limiter of entropy, wrong field": {"/entropy", fields{"rate": 1}, "rate"},
		"metrics again":                   {"/metrics", metrics{Path: file}, "already"},
		"action that is none":             {"/actions", action{"Reboot"}, "action_type"},
		"start without a kernel":          {"/actions", action{instanceStart}, "kernel"},
		"keys before the start":           {"/actions", action{sendCtrlAltDel}, "before starting"},
		"metrics before the start":        {"/actions", action{flushMetrics}, "before starting"},
		"no body":                         {"/boot-source", nil, "empty"},
		"a body too long":                 {"/mmds", fields{"text": strings.Repeat("x", 51200)}, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			err := a.put(t.Context(), r.path, r.body)
			var fault *Fault
			if !errors.As(err, &fault) || fault.Status != 400 || fault.Path != r.path || !strings.Contains(fault.Message, r.want) {
				t.Errorf("got %v, want a fault that says %q", err, r.want)
			}
		})
	}
}

func TestAwaitEndsWithTheProcessAndWithTheContext(t *testing.T) {
	a := newAPI(func(context.Context) (net.Conn, error) { return nil, errors.New("nobody is there") })
	defer a.close()
	gone := make(chan struct{})
	close(gone)
	if err := a.await(t.Context(), gone); !errors.Is(err, errEnded) {
		t.Errorf("a process that ended: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.await(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that was given up: %v", err)
	}
}

// TestSocketOfOthersIsRefused: who has taken over a Firecracker may put other things
// in its socket's place.
func TestSocketOfOthersIsRefused(t *testing.T) {
	root := t.TempDir()
	b := &boot{root: root, uid: os.Getuid() + 1}
	other := filepath.Join(t.TempDir(), "other.sock")
	l, err := net.Listen("unix", other)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := filepath.Join(root, apiSocket)
	for what, put := range map[string]func() error{
		"a symbolic link": func() error { return os.Symlink(other, at) },
		"a file":          func() error { return os.WriteFile(at, nil, 0o600) },
	} {
		if err := put(); err != nil {
			t.Fatal(err)
		}
		if conn, err := b.dial(t.Context()); err == nil {
			t.Errorf("%s: connected, %v", what, conn.Close())
		}
		if err := os.Remove(at); err != nil {
			t.Fatal(err)
		}
	}
	own, err := net.Listen("unix", at)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	b.uid = os.Getuid()
	conn, err := b.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close() // nothing was sent
}

// TestHostileAnswers: a redirect is not followed, and headers without end are not read.
func TestHostileAnswers(t *testing.T) {
	for what, answer := range map[string]string{
		"a redirect":       "HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
		"headers for ever": "HTTP/1.1 204 No Content\r\nX: " + strings.Repeat("x", 2*maxAnswer) + "\r\n\r\n",
	} {
		var asked atomic.Int32
		a := newAPI(func(context.Context) (net.Conn, error) {
			near, far := net.Pipe()
			go func() {
				defer far.Close()
				for r := bufio.NewReader(far); ; {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					asked.Add(1)
					if _, err := io.WriteString(far, answer); err != nil {
						return
					}
				}
			}()
			return near, nil
		})
		if err := a.put(t.Context(), "/actions", action{instanceStart}); err == nil {
			t.Error(what, "was taken for an answer")
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("%s: asked %d times", what, n)
		}
		a.close()
	}
}

// TestFilesThatTheJailsUserMayChange are no images.
func TestFilesThatTheJailsUserMayChange(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	uid, gid := os.Getuid(), os.Getgid()
	for _, c := range []struct {
		mode     os.FileMode
		uid, gid int
		may      bool
	}{
		{0o444, uid, gid, true}, // its owner can change the mode
		{0o644, uid + 1, gid + 1, false}, {0o664, uid + 1, gid + 1, false},
		{0o664, uid + 1, gid, true}, {0o646, uid + 1, gid + 1, true},
	} {
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := mayWrite(info, c.uid, c.gid); got != c.may {
			t.Errorf("mode %o, user %d:%d of %d:%d: %v", c.mode, c.uid, c.gid, uid, gid, got)
		}
	}
}

// TestMetricsAreBounded, as lines of the log are.
func TestMetricsAreBounded(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	metrics := relayMetrics(log)
	for range 1000 {
		metrics(`{"x":1}`)
	}
	if n := strings.Count(b.String(), "\n"); n != metricsBurst {
		t.Errorf("%d of 1000 are in the log", n)
	}
	b.Reset()
	relayLog(log)(strings.Repeat("x", maxLine-1))
	if b.Len() > 2*maxText {
		t.Errorf("a line of %d bytes in the log", b.Len())
	}
}
