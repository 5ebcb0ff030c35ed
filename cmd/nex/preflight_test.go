package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"nex/internal/nextest"
	"nex/internal/preflight"
)

// serveFiles DIR: serves a directory at $SITE until the script ends.
func serveFiles(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: serves DIR")
	}
	site := httptest.NewServer(http.FileServer(http.Dir(ts.MkAbs(args[0]))))
	ts.Defer(site.Close)
	ts.Setenv("SITE", site.URL)
}

// condition tells scripts who they run as.
func condition(name string) (bool, error) {
	if name != "root" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	return os.Geteuid() == 0, nil
}

// tree is what is below a directory: what each file is, how large, and when it changed.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			all[path] = fmt.Sprint(info.Mode(), info.Size(), info.ModTime())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestBareMachine goes from a host with nothing to one that is ready, and shows that
// a look changes nothing, and neither does an installation where all is there.
func TestBareMachine(t *testing.T) {
	dir, from := t.TempDir(), t.TempDir()
	t.Setenv("PATH", "/nowhere") // without what the host of the test may have for nodes
	write := func(path, text string, mode fs.FileMode) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode)); err != nil {
			t.Fatal(err)
		}
	}
	settings := filepath.Join(dir, "config.json")
	write(settings, fmt.Sprintf(`{"sandbox": "qemu", "qemu": {"network": %q}, "state_dir": %q, "bin_path": [%q], "cni": {"conf_dir": %q, "bin_path": [%[4]q]}}`,
		map[bool]string{true: "auto", false: "user"}[os.Geteuid() == 0], dir+"/state", dir+"/programs", dir+"/cni"), 0o600)
	nats := nextest.Server(t).ClientURL()
	look := func(code int, flags ...string) (report preflightReport) {
		t.Helper()
		var out, complaint bytes.Buffer
		args := append([]string{"--json", "-s", nats, "node", "preflight", "--config", settings}, flags...)
		if got := run(t.Context(), &process{}, args, &out, &complaint); got != code {
			t.Fatalf("it ended with %d, want %d\n%s%s", got, code, &out, &complaint)
		}
		if err := json.Unmarshal(out.Bytes(), &report); err != nil {
			t.Fatal(err)
		}
		if report.Ready != (code == 0) || report.Config != settings {
			t.Errorf("ended with %d, and says %t of %s", code, report.Ready, report.Config)
		}
		return report
	}
	missing := func(r preflightReport) (names []string) {
		for _, f := range r.Findings {
			if f.Result == preflight.Missing {
				names = append(names, f.Name)
			}
			if f.Result == preflight.Missing && (f.Fix == "" || f.Why == "" || f.Detail == "") {
				t.Errorf("%s says too little: %+v", f.Name, f)
			}
		}
		return names
	}
	before := tree(t, dir)
	image := []string{"VMLinux Kernel", "Initial RAM filesystem", "Root Filesystem Template"}
	if got, want := missing(look(1, "--check")), append([]string{"QEMU VM binary"}, image...); !slices.Equal(got, want) {
		t.Errorf("a bare machine lacks %q, want %q", got, want)
	}
	wants(t, nexMain(t, 1, "-s", nats, "node", "preflight", "--config", settings, "--check"), "⛔ Dependency Missing - QEMU VM binary", "fix: install it", "4 dependencies are missing")
	if after := tree(t, dir); !maps.Equal(before, after) {
		t.Errorf("--check has changed %v to %v", before, after)
	}

	write(dir+"/programs/qemu-system-x86_64", "#!/bin/sh\necho QEMU emulator version 7.2.22\n", 0o755) // as its fix says
	kernel, agent := guestFile(t, "vmlinux"), guestFile(t, "agent")
	nexMain(t, 0, "image", "build", "-o", from, "--kernel", kernel, "--init", agent, "--agent", agent)
	for _, name := range []string{"ptp", "host-local"} {
		write(filepath.Join(from, name), "#!/bin/sh\n", 0o755)
	}
	report := look(0, "--yes", "--from", from)
	if len(report.Failed) > 0 || len(missing(report)) > 0 || len(report.Installed) < len(image) {
		t.Errorf("installed %q, failed %q", report.Installed, report.Failed)
	}
	if _, err := os.Stat(dir + "/state/images/default/image.json"); err != nil {
		t.Error(err)
	}
	wants(t, nexMain(t, 0, "image", "verify", "--config", settings), "Image default is as it was built")

	before = tree(t, dir)
	if report = look(0, "--yes", "--from", from, "--verify"); len(report.Installed)+len(report.Failed) > 0 || len(report.Verified) < len(image) {
		t.Errorf("again: installed %q, failed %q, verified %v", report.Installed, report.Failed, report.Verified)
	}
	if after := tree(t, dir); !maps.Equal(before, after) {
		t.Errorf("again has changed %v to %v", before, after)
	}
}
