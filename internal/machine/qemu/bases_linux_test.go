package qemu_test

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"nex/internal/cgroup"
	"nex/internal/nextest"
)

// TestBases boots root file systems that nex rootfs makes of each kind of base, and runs a function on
// each: the agent is started by what the base has for that.
func TestBases(t *testing.T) {
	groups, _ := cgroup.Open() // nil where there are none
	t.Cleanup(groups.Close)
	for _, base := range []struct {
		name, size string
		path       func(t *testing.T) string
	}{
		{"distroless, an OCI layout", "64MiB", func(t *testing.T) string {
			return ociLayout(t, map[string]string{"etc/os-release": "ID=none\n", "etc/ssl/certs/ca-certificates.crt": "none\n"}, nil)
		}},
		{"busybox, an OCI layout", "64MiB", func(t *testing.T) string {
			busybox, err := os.ReadFile(nextest.Program(t, "busybox"))
			if err != nil {
				t.Fatal(err)
			}
			return ociLayout(t, map[string]string{"bin/busybox": string(busybox)}, map[string]string{"bin/sh": "busybox", "sbin/init": "/bin/busybox"})
		}},
		{"busybox and OpenRC", "128MiB", func(t *testing.T) string { return nextest.Debian(t, "openrc") }},
		{"Debian with systemd", "400MiB", func(t *testing.T) string { return nextest.Debian(t, "systemd") }},
	} {
		t.Run(base.name, func(t *testing.T) {
			image := nextest.GuestImageOf(t, nextest.StaticAgent(t), base.path(t), base.size)
			g := taken(t, poolOf(t, launcherOf(t, t.TempDir(), groups, image)))
			defer g.Release()
			deployScript(t, g, []byte(`(subject, payload) => payload`))
			if err := called(t, g, nextest.Patience); err != nil {
				t.Error(err)
			}
		})
	}
}

// ociLayout returns a directory that is an OCI layout of an image with one layer: files, which
// anybody may execute, and symbolic links.
func ociLayout(t *testing.T, files, links map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range links {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64"})
	if err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err == nil {
		img, err = mutate.AppendLayers(img, layer)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "layout")
	p, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = p.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
