package rootfs

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"nex/internal/nextest"
)

// alpineLike are layers with what tells how an image starts.
var alpineLike = [][]string{
	{"bin/", "bin/busybox=#!", "bin/sh->busybox", "sbin/", "sbin/init->/bin/busybox", "sbin/openrc=#!", "etc/", "etc/passwd=root:x:0:0::/root:/bin/sh\n", "etc/resolv.conf=nameserver 1.1.1.1\n", "gone=1"},
	{"proc/", "proc/left=1", "tmp/", ".wh.gone"},
}

func image(t *testing.T, arch string, layers [][]string) v1.Image {
	t.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: arch})
	if err != nil {
		t.Fatal(err)
	}
	for _, entries := range layers {
		data := archive(t, entries...)
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// build builds with a base and returns the path and what was built.
func build(t *testing.T, base, output string) (string, Result) {
	t.Helper()
	path := filepath.Join(t.TempDir(), output)
	r, err := Build(t.Context(), Options{Base: base, Agent: nextest.StaticAgent(t), AgentVersion: "1.2", Sum: true, Size: 40 << 20, Output: path})
	if err != nil {
		t.Fatal(err)
	}
	return path, r
}

// checkAlpineLike looks at a file system that was made of alpineLike.
func checkAlpineLike(t *testing.T, path string, r Result) {
	t.Helper()
	fsck(t, path)
	if r.Start != ByOpenRC || r.Size != 40<<20 || r.Free <= 0 {
		t.Errorf("built %+v", r)
	}
	for request, want := range map[string]string{
		"stat /etc/runlevels/boot/agent": `dest: "/etc/init.d/agent"`,
		"stat /etc/init.d/agent":         "Mode:  0755",
		"stat " + AgentPath:              "Mode:  0755",
		"cat /etc/passwd":                "root:x:0:0::/root:/bin/sh\nnobody:",
		"stat /home/nex":                 "User:  1000   Group:  1000",
		"stat /tmp":                      "Mode:  01777",
		"cat /etc/resolv.conf":           "# The agent",
	} {
		if got := debugfs(t, path, request); !strings.Contains(got, want) {
			t.Errorf("%s says\n%s\nwant %q in it", request, got, want)
		}
	}
	for _, absent := range []string{"gone", "proc/left"} {
		if got := debugfs(t, path, "stat /"+absent); strings.Contains(got, "Inode:") {
			t.Errorf("/%s is there", absent)
		}
	}
	facts, err := Inspect(t.Context(), path)
	if err != nil || facts.Record.AgentVersion != "1.2" || facts.Record.Start != ByOpenRC || facts.AgentSize == 0 || !facts.Init {
		t.Errorf("inspect: %+v (%v)", facts, err)
	}
}

// TestBases builds from one image in every form that a base may have.
func TestBases(t *testing.T) {
	img := image(t, "amd64", alpineLike)
	dir := t.TempDir()
	tag, err := name.NewTag("test.local/alpine:like")
	if err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(dir, "saved.tar")
	if err := tarball.WriteToFile(saved, tag, img); err != nil {
		t.Fatal(err)
	}
	oci := filepath.Join(dir, "oci")
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: image(t, "arm64", [][]string{{"arm=1"}}), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}})
	if _, err := layout.Write(oci, index); err != nil {
		t.Fatal(err)
	}
	ociTar, flat := filepath.Join(dir, "oci.tar"), filepath.Join(dir, "flat.tar.gz")
	tarDir(t, oci, ociTar)
	tr := emptyTree(t)
	for _, l := range alpineLike {
		if err := tr.addLayer(t.Context(), bytes.NewReader(archive(t, l...))); err != nil {
			t.Fatal(err)
		}
	}
	var plain, zipped bytes.Buffer
	if err := tr.writeTar(t.Context(), &plain, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(plain.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(z.Close(), os.WriteFile(flat, zipped.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, base := range []string{saved, oci, ociTar, flat, push(t, img)} {
		t.Run(filepath.Base(base), func(t *testing.T) {
			path, r := build(t, base, "rootfs.ext4")
			checkAlpineLike(t, path, r)
			if _, again := build(t, base, "rootfs.ext4"); again.SHA256 != r.SHA256 {
				t.Error("a second build differs")
			}
		})
	}
}

// push puts an image into a registry that wants a password, of which the test's
// Docker configuration knows, and returns its reference.
func push(t *testing.T, img v1.Image) string {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "joe" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	ref, err := name.ParseReference(host + "/alpine:like")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: "joe", Password: "secret"})); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	config := fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, host, base64.StdEncoding.EncodeToString([]byte("joe:secret")))
	if err := os.WriteFile(filepath.Join(home, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	t.Setenv("DOCKER_CONFIG", home)
	http.DefaultClient.CloseIdleConnections()
	t.Cleanup(remote.DefaultTransport.(*http.Transport).CloseIdleConnections)
	return ref.String()
}

// tarDir makes a tar archive of the files in a directory.
func tarDir(t *testing.T, dir, to string) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), os.WriteFile(to, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func TestBadBasesAreRefused(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("garbage "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	arm := filepath.Join(dir, "arm")
	if _, err := layout.Write(arm, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image(t, "arm64", nil)})); err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(dir, "changed")
	p, err := layout.Write(changed, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image(t, "amd64", [][]string{{"a=1"}})}))
	if err != nil {
		t.Fatal(err)
	}
	swapLayer(t, p)
	for base, want := range map[string]string{
		garbage:                  "neither an image nor a tar archive",
		arm:                      "guests are linux/amd64",
		changed:                  "its SHA-256 is",
		dir:                      "not an OCI layout",
		filepath.Join(dir, "no"): "no such file",
		"NOT A NAME":             "neither a file that is there nor the name of an image",
		"127.0.0.1:1/nobody":     "docker save",
	} {
		out := filepath.Join(t.TempDir(), "rootfs.ext4")
		_, err := Build(t.Context(), Options{Base: base, Agent: nextest.StaticAgent(t), Output: out})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", base, err, want)
		}
		if left, _ := os.ReadDir(filepath.Dir(out)); len(left) > 0 {
			t.Errorf("%s: left %v", base, left)
		}
	}
}

// swapLayer puts another layer in the place of the one in a layout.
func swapLayer(t *testing.T, p layout.Path) {
	t.Helper()
	img, err := fromLayout(string(p))
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(string(p), "blobs", "sha256", digest.Hex), archive(t, "a=2"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOtherStartsAndOutputs(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "systemd.tar")
	if err := os.WriteFile(base, archive(t, "usr/", "usr/lib/systemd/systemd=ELF", "lib->usr/lib", "sbin/init->../lib/systemd/systemd"), 0o600); err != nil {
		t.Fatal(err)
	}
	path, r := build(t, base, "rootfs.ext4")
	if got := debugfs(t, path, "stat /etc/systemd/system/multi-user.target.wants/nex-agent.service"); r.Start != BySystemd || !strings.Contains(got, "Fast link") {
		t.Errorf("built %+v, and a unit %s", r, got)
	}
	zipped, r := build(t, Scratch, "rootfs.ext4.gz")
	if facts, err := Inspect(t.Context(), zipped); err != nil || r.Start != ByInit || facts.Size != 40<<20 || facts.Init || facts.Script {
		t.Errorf("compressed %+v (%v), built %+v", facts, err, r)
	}
}

// TestUsers: who has nex's numbers or its name in an image keeps them.
func TestUsers(t *testing.T) {
	for name, c := range map[string]struct{ passwd, group, user, line, groupLine, home string }{
		"nobody":          {"", "", "", "nex:x:1000:1000:", "nex:x:1000:", "User:  1000   Group:  1000"},
		"another user":    {"web:x:1000:1000::/srv:/bin/sh", "web:x:1000:", "web", "web:x:1000:1000::/srv:/bin/sh\nroot:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\nnex:x:1000:1000:", "web:x:1000:\n", "User:  1000   Group:  1000"},
		"another group":   {"", "web:x:1000:a,b\n", "", "nex:x:1000:1000:", "web:x:1000:a,b\n", "User:  1000   Group:  1000"},
		"a user nex":      {"nex:x:77:78::/:/bin/sh\n", "", "", "nex:x:77:78::/:/bin/sh\n", "nex:x:78:", "User:    77   Group:    78"},
		"a group nex":     {"", "nex:x:79:\n", "", "nex:x:1000:79:", "nex:x:79:\n", "User:  1000   Group:    79"},
		"what is no line": {"nex\n1000\n", "::::::", "", "nex\n1000\n", "nex:x:1000:", "User:  1000   Group:  1000"},
	} {
		t.Run(name, func(t *testing.T) {
			base := filepath.Join(t.TempDir(), "base.tar")
			if err := os.WriteFile(base, archive(t, "etc/", "etc/passwd="+c.passwd, "etc/group="+c.group), 0o600); err != nil {
				t.Fatal(err)
			}
			path, r := build(t, base, "rootfs.ext4")
			if r.User != c.user {
				t.Errorf("nex is a second name for %q, want %q", r.User, c.user)
			}
			for request, want := range map[string]string{"cat /etc/passwd": c.line, "cat /etc/group": c.groupLine, "stat /home/nex": c.home} {
				if got := debugfs(t, path, request); !strings.Contains(got, want) || strings.Count(got, "\nnex:") > 1 {
					t.Errorf("%s says\n%s\nwant %q in it", request, got, want)
				}
			}
		})
	}
}

func TestBootScript(t *testing.T) {
	dir := t.TempDir()
	script, out := filepath.Join(dir, "boot.sh"), filepath.Join(dir, "rootfs.ext4")
	o := Options{Agent: nextest.StaticAgent(t), Script: script, Size: 40 << 20, Output: out}
	if err := os.WriteFile(script, []byte("echo no\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), "#!") {
		t.Errorf("a script that nothing runs: %v", err)
	}
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho yes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if got := debugfs(t, out, "cat "+ScriptPath); got != "#!/bin/sh\necho yes\n" {
		t.Errorf("the script is %q", got)
	}
	if facts, err := Inspect(t.Context(), out); err != nil || !facts.Script {
		t.Errorf("inspect: %+v (%v)", facts, err)
	}
}

func TestBuildEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out := filepath.Join(t.TempDir(), "rootfs.ext4")
	if err := os.WriteFile(out, []byte("what was there"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Build(ctx, Options{Agent: nextest.StaticAgent(t), Output: out, Progress: func(stage string, _, _ int64) {
		if stage == "write files" {
			cancel()
		}
	}})
	if left, _ := os.ReadDir(filepath.Dir(out)); !errors.Is(err, context.Canceled) || len(left) != 1 {
		t.Errorf("ended with %v, left %v", err, left)
	}
	if got, err := os.ReadFile(out); string(got) != "what was there" {
		t.Errorf("the file that was there holds %q (%v)", got, err)
	}
}

func TestAgentsThatGuestsCannotRun(t *testing.T) {
	script := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := CheckAgent(script); err == nil || !strings.Contains(err.Error(), "--agent") {
		t.Errorf("a script: %v", err)
	}
	if err := CheckAgent("/bin/sh"); err == nil || !strings.Contains(err.Error(), "shared libraries") {
		t.Errorf("a program with libraries: %v", err)
	}
}
