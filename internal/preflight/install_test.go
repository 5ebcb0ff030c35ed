package preflight

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nex/internal/config"
)

// testHost is a host whose files are all in one directory.
func testHost(t *testing.T) *Host {
	t.Helper()
	dir := t.TempDir()
	s := config.Default()
	s.CNI.ConfDir = filepath.Join(dir, "cni")
	s.BinPath, s.CNI.BinPath = []string{filepath.Join(dir, "programs")}, []string{filepath.Join(dir, "plugins")}
	program := filepath.Join(dir, "nex")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return &Host{Settings: s, StateDir: filepath.Join(dir, "state"), Program: program, Version: "1.2.3"}
}

// install has one item installed.
func install(t *testing.T, in *Installer, name item) (text string, err error) {
	t.Helper()
	s, err := in.Step(Finding{item: name})
	if err != nil {
		return "", err
	}
	t.Cleanup(func() {
		if in.fetcher != nil {
			in.fetcher.client.CloseIdleConnections()
		}
		if in.lock != nil {
			_ = in.lock.Close() // was only a lock
		}
	})
	return s.Text, in.Install(t.Context(), s)
}

func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Fatalf("got %v, want %q", err, text)
	}
}

func TestInstallDownloads(t *testing.T) {
	h := testHost(t)
	archive := tgz(t, [2]string{"release/firecracker", "vmm"}, [2]string{"release/jailer", "jail"})
	o := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/1.2.3/fc.tgz" {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(archive))
	})
	url := o.URL + "/{version}/fc.tgz"
	in := &Installer{Host: h, Version: "1.2.3", Manifest: Manifest{[]Artifact{
		{Name: "firecracker", URL: url, Member: "release/firecracker"}, {Name: "jailer", URL: url, Member: "release/jailer", SHA256: sum(archive)},
	}}}
	_, err := install(t, in, itemFirecracker)
	wantError(t, err, "--sha256 firecracker=HEX")
	if len(o.asked()) > 0 {
		t.Fatal("it was asked for all the same")
	}
	in.SHA256 = map[string]string{"fc.tgz": strings.ToUpper(sum(archive))} // by the name of the file
	if text, err := install(t, in, itemFirecracker); err != nil || !strings.Contains(text, sum(archive)) {
		t.Fatalf("%q: %v", text, err)
	}
	in.SHA256 = nil
	if _, err := install(t, in, itemJailer); err != nil {
		t.Fatal(err)
	}
	if n := len(o.asked()); n != 1 {
		t.Errorf("the archive was asked for %d times", n)
	}
	for name, want := range map[string]string{"firecracker": "vmm", "jailer": "jail"} {
		path := filepath.Join(h.Settings.BinPath[0], name)
		wantFile(t, path, []byte(want))
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	wantNoneIn(t, filepath.Join(h.StateDir, "downloads"))
	_, err = install(t, in, itemKernel)
	wantError(t, err, "the manifest does not say where vmlinux comes from")
}

// TestFailedInstallLeavesWhatWasThere: also when the archive turns out to be wrong
// only while it is unpacked.
func TestFailedInstallLeavesWhatWasThere(t *testing.T) {
	h := testHost(t)
	kernel, _, _ := h.Settings.Image(h.StateDir)
	if err := os.MkdirAll(filepath.Dir(kernel), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kernel, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	cut := gzipped(t, payload())
	cut = cut[:len(cut)-10]
	o := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(cut) }) // or the client notices
	in := &Installer{Host: h, Manifest: Manifest{[]Artifact{{Name: "vmlinux", URL: o.URL + "/vmlinux.gz", SHA256: sum(cut)}}}}
	_, err := install(t, in, itemKernel)
	wantError(t, err, "unexpected EOF")
	wantFile(t, kernel, []byte("old"))
	if entries, err := os.ReadDir(filepath.Dir(kernel)); err != nil || len(entries) != 1 {
		t.Errorf("beside the kernel: %v, %v", entries, err)
	}
	if list, err := readRecord(h.StateDir); err != nil || len(list) > 0 {
		t.Errorf("recorded %v, %v", list, err)
	}
}

func TestInstallFromDirectory(t *testing.T) {
	h := testHost(t)
	from := t.TempDir()
	put := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(from, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	image := []byte(`{"agent": {"version": "1.2.3"}}`)
	put("rootfs.ext4.gz", gzipped(t, []byte("root")))
	put("image.json", image)
	archive := tgz(t, [2]string{"./ptp", "plugin"})
	put("plugins.tgz", archive)
	in := &Installer{Host: h, From: from, Manifest: Manifest{[]Artifact{{Name: "ptp", URL: "https://nowhere.invalid/plugins.tgz", Member: "ptp"}}}}
	for _, name := range []item{itemRootfs, itemPtp} {
		if _, err := install(t, in, name); err != nil {
			t.Fatal(err)
		}
	}
	_, _, rootfs := h.Settings.Image(h.StateDir)
	wantFile(t, rootfs, []byte("root"))
	wantFile(t, filepath.Join(filepath.Dir(rootfs), "image.json"), image)
	wantFile(t, filepath.Join(h.Settings.CNI.BinPath[0], "ptp"), []byte("plugin"))
	_, err := install(t, in, itemKernel)
	wantError(t, err, "has no vmlinux, nor vmlinux.gz")

	put("SHA256SUMS", []byte(sum(archive)+"  plugins.tgz\n"))
	if _, err := install(t, in, itemPtp); err != nil {
		t.Error(err)
	}
	_, err = install(t, in, itemRootfs)
	wantError(t, err, "SHA256SUMS does not list rootfs.ext4.gz")
	put("SHA256SUMS", []byte(sum(nil)+" *./plugins.tgz\n\n"))
	_, err = install(t, in, itemPtp)
	wantError(t, err, "the digest is another one")
	put("SHA256SUMS", []byte("what\n"))
	_, err = install(t, in, itemPtp)
	wantError(t, err, "is no line of sha256sum")
}

func TestConflistIsWrittenOnce(t *testing.T) {
	h := testHost(t)
	p := h.probe(t.Context())
	if f := p.conflist(t.Context()); f.Result != Warning { // the node has its own
		t.Fatalf("before: %v", f)
	}
	if _, err := install(t, &Installer{Host: h}, itemConflist); err != nil {
		t.Fatal(err)
	}
	if f := p.conflist(t.Context()); f.Result != OK {
		t.Errorf("after: %v", f)
	}
	path := h.Settings.CNI.Conflist()
	for text, want := range map[string]string{
		`{"name": "other", "plugins": [{"type": "ptp"}, {"type": "tc-redirect-tap"}]}`: `is for the network "other"`,
		`{"name": "fcnet", "plugins": [{"type": "ptp"}]}`:                              `its last plugin is "ptp"`,
		`{"name": "fcnet"}`: "no plugin configs found",
		`[`:                 "unexpected end of JSON input",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if f := p.conflist(t.Context()); f.Result != Missing || !strings.Contains(f.Detail, want) {
			t.Errorf("%s: %v", text, f)
		}
		_, err := install(t, &Installer{Host: h}, itemConflist)
		wantError(t, err, "is not overwritten")
		wantFile(t, path, []byte(text))
	}
}

// TestTapIsNexItself: but for that of an operator.
func TestTapIsNexItself(t *testing.T) {
	h := testHost(t)
	p := h.probe(t.Context())
	if f := p.tap(t.Context()); f.Result != OK || f.Found != h.Program || f.Detail != "nex itself" {
		t.Errorf("nobody's: %+v", f)
	}
	path := program(t, h.Settings.CNI.BinPath[0], "tc-redirect-tap", "mine")
	if f := p.tap(t.Context()); f.Result != OK || f.Found != path || f.Detail != "" {
		t.Errorf("the operator's: %+v", f)
	}
}

func TestVerify(t *testing.T) {
	h := testHost(t)
	in := &Installer{Host: h, From: t.TempDir()}
	if err := os.WriteFile(filepath.Join(in.From, "ptp"), []byte("plugin"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []item{itemConflist, itemPtp, itemPtp} {
		if _, err := install(t, in, name); err != nil {
			t.Fatal(err)
		}
	}
	problems := func() (all []string) {
		t.Helper()
		list, err := Verify(t.Context(), h.StateDir)
		if err != nil || len(list) != 2 {
			t.Fatalf("%v, %v", list, err)
		}
		for _, v := range list {
			all = append(all, v.Problem)
		}
		return all
	}
	if got := problems(); got[0] != "" || got[1] != "" {
		t.Errorf("at once: %q", got)
	}
	if err := errors.Join(os.WriteFile(h.Settings.CNI.Conflist(), nil, 0o600), os.Remove(filepath.Join(h.Settings.CNI.BinPath[0], "ptp"))); err != nil {
		t.Fatal(err)
	}
	if got := problems(); !strings.Contains(got[0], "its SHA-256 is "+sum(nil)) || !strings.Contains(got[1], "no such file") {
		t.Errorf("changed and removed: %q", got)
	}
	if err := os.WriteFile(filepath.Join(h.StateDir, recordName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), h.StateDir); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("a broken record: %v", err)
	}
}

func TestDefaultManifestIsWhole(t *testing.T) {
	data, err := json.Marshal(DefaultManifest())
	if err != nil {
		t.Fatal(err)
	}
	m, err := parseManifest(data)
	if err != nil || len(m.Artifacts) == 0 {
		t.Fatal(m, err)
	}
	for _, a := range m.Artifacts {
		if a.SHA256 != "" {
			t.Errorf("%s has a digest: of what bytes, and who held them?", a.Name)
		}
		if filled, ok := m.of(item(a.Name), "1"); !ok || strings.Contains(filled.URL+filled.Member, "{") {
			t.Errorf("%s: %+v", a.Name, filled)
		}
	}
}

func TestManifestsThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"artifacts": [{"name": "sh", "url": "https://a/sh"}]}`:                                        "it is nothing that is installed",
		`{"artifacts": [{"name": "ptp", "url": "file:///etc/passwd"}]}`:                                 "http or https",
		`{"artifacts": [{"name": "ptp", "url": "https://a/p", "sha256": "12"}]}`:                        "no SHA-256",
		`{"artifacts": [{"name": "ptp", "url": "https://a/p.tgz"}]}`:                                    "say which member",
		`{"artifacts": [{"name": "ptp", "url": "https://a/p", "member": "x"}]}`:                         "neither .tgz",
		`{"artifacts": [{"name": "ptp", "url": "https://a/p"}, {"name": "ptp", "url": "https://a/p"}]}`: "twice",
		`{"artifacts": [{"name": "ptp", "url": "https://a/p", "max_bytes": -1}]}`:                       "negative",
		`{"artifact": []}`:       "unknown field",
		`{"artifacts": []} more`: "there is more after it",
		`{"artifacts": []} {}`:   "there is more after it",
	} {
		if _, err := parseManifest([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	if _, err := LoadManifest(t.Context(), "http://192.0.2.1/manifest.json"); err == nil || !strings.Contains(err.Error(), "neither https nor on this host") {
		t.Errorf("by http: %v", err)
	}
}

func TestManifestFromServer(t *testing.T) {
	o := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good":
			_, _ = w.Write([]byte(`{"artifacts": [{"name": "ptp", "url": "https://a/p"}]}`)) // or the client notices
		case "/endless":
			_, _ = w.Write(make([]byte, maxManifest+1)) // or the client notices
		case "/away":
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	})
	if m, err := LoadManifest(t.Context(), o.URL+"/good"); err != nil || len(m.Artifacts) != 1 {
		t.Errorf("good: %v, %v", m, err)
	}
	for path, want := range map[string]string{"/endless": "more than", "/away": "it sends on to http://192.0.2.1/", "/nothing": "404"} {
		if _, err := LoadManifest(t.Context(), o.URL+path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}

func TestInstallIsCancelled(t *testing.T) {
	h := testHost(t)
	ctx, cancel := context.WithCancel(t.Context())
	o := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	})
	in := &Installer{Host: h, Manifest: Manifest{[]Artifact{{Name: "ptp", URL: o.URL + "/ptp", SHA256: sum(nil)}}}}
	s, err := in.Step(Finding{item: itemPtp})
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Install(ctx, s); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := in.Close(); err != nil {
		t.Error(err)
	}
}

// TestOneInstallationAtATime: the second is refused before it changes anything.
func TestOneInstallationAtATime(t *testing.T) {
	h := testHost(t)
	from := t.TempDir()
	if err := os.WriteFile(filepath.Join(from, "ptp"), []byte("plugin"), 0o600); err != nil {
		t.Fatal(err)
	}
	one, two := &Installer{Host: h, From: from}, &Installer{Host: h, From: from}
	if _, err := install(t, one, itemConflist); err != nil {
		t.Fatal(err)
	}
	_, err := install(t, two, itemPtp)
	if !errors.Is(err, ErrBusy) || err.Error() != "another nex node preflight is installing into "+h.StateDir+": try again when it is done" {
		t.Errorf("beside another: %v", err)
	}
	wantNoneIn(t, h.Settings.CNI.BinPath[0])
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := install(t, two, itemPtp); err != nil {
		t.Errorf("after the other: %v", err)
	}
	if err := two.Close(); err != nil {
		t.Error(err)
	}
	if list, err := readRecord(h.StateDir); err != nil || len(list) != 2 {
		t.Errorf("recorded %v, %v", list, err)
	}
}

func TestDigestsAreOfSomething(t *testing.T) {
	in := &Installer{Manifest: Manifest{[]Artifact{{Name: "ptp", URL: "https://a/plugins-{version}.tgz", Member: "ptp"}}}, Version: "1.2"}
	for name, good := range map[string]bool{"ptp": true, "vmlinux": true, "plugins-1.2.tgz": true, "plugins.tgz": false, "vmlinux.gz": false, "firecraker": false, "": false} {
		in.SHA256 = map[string]string{name: sum(nil)}
		err := in.CheckNames()
		if (err == nil) != good || !good && !strings.Contains(err.Error(), "--sha256 "+name+": there is nothing of that name; there are firecracker, host-local, initramfs, jailer, nex-agent, plugins-1.2.tgz, ptp, rootfs.ext4, vmlinux") {
			t.Errorf("%s: %v", name, err)
		}
	}
	in.From, in.SHA256 = "dir", map[string]string{"vmlinux.gz": sum(nil)}
	if err := in.CheckNames(); err != nil {
		t.Errorf("of a file in a directory: %v", err)
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"artifacts": [{"name": "ptp", "url": "https://a/{arch}.tgz", "member": "ptp", "sha256": "` + sum(nil) + `"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data)
		if err != nil {
			return
		}
		for _, a := range m.Artifacts {
			if filled, ok := m.of(item(a.Name), "1"); !ok || filled.MaxBytes <= 0 || strings.ContainsAny(a.Name, "/\\") {
				t.Errorf("accepted %+v", a)
			}
		}
	})
}

func FuzzSums(f *testing.F) {
	f.Add([]byte(sum(nil) + "  a\n" + sum(nil) + " *./b\n"))
	path := filepath.Join(f.TempDir(), "SHA256SUMS")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		sums, err := readSums(path)
		if err != nil {
			return
		}
		for name, digest := range sums {
			if name == "" || !isDigest(digest) {
				t.Errorf("%q: %q", name, digest)
			}
		}
	})
}

func FuzzConflist(f *testing.F) {
	f.Add(newConflist(config.Default().CNI, "/s"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := parseConflist(data); err == nil && c.Plugins[len(c.Plugins)-1].Type != "tc-redirect-tap" {
			t.Errorf("accepted %s", data)
		}
	})
}
