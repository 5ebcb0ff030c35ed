package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nex/internal/nextest"
)

// guestFile writes a file that is an executable for guests as far as its header
// says, and returns its path.
func guestFile(t *testing.T, name string) string {
	t.Helper()
	header := make([]byte, 64)
	copy(header, "\x7fELF\x02\x01\x01")
	header[16], header[18], header[20] = 2, 62, 1 // an executable, amd64, the first version
	header[52], header[54], header[58] = 64, 56, 64
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, append(header, "Linux version 6.1.0-test (x)"...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// nexMain runs the program and fails the test unless it ends with that code; it
// returns what was printed.
func nexMain(t *testing.T, code int, args ...string) string {
	t.Helper()
	var out, complaint bytes.Buffer
	if got := run(t.Context(), &process{}, args, &out, &complaint); got != code {
		t.Fatalf("nex %s ended with %d, want %d\n%s%s", strings.Join(args, " "), got, code, &out, &complaint)
	}
	return out.String() + complaint.String()
}

func wants(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in\n%s", part, text)
		}
	}
}

func TestRootfsCommand(t *testing.T) {
	agent, dir := guestFile(t, "agent"), t.TempDir()
	file := filepath.Join(dir, "rootfs.ext4")
	for _, command := range []string{"rootfs", "fs"} {
		wants(t, nexMain(t, 0, command, "--image", "scratch", "--agent", agent, "--size", "8MiB", "-o", file),
			"Wrote "+file+": 8.0 MiB", "agent started as the first process")
	}
	wants(t, nexMain(t, 0, "rootfs", "inspect", file), "8.0 MiB", "92 B", "Base: scratch", "Boot script: none")
	var facts struct{ Size, Free int64 }
	if err := json.Unmarshal([]byte(nexMain(t, 0, "--json", "rootfs", "inspect", file)), &facts); err != nil || facts.Size != 8<<20 || facts.Free <= 0 {
		t.Errorf("inspect --json says %+v (%v)", facts, err)
	}
	wants(t, nexMain(t, 1, "rootfs", "--image", "scratch", "--agent", agent, "--size", "40000", "-o", file), "does not fit into 39 KiB: it needs --size=1MiB")
	wants(t, nexMain(t, 1, "rootfs", "--image", "scratch", "--agent", agent, "--size", "big", "-o", file), `"big" is no size`)
	wants(t, nexMain(t, 1, "rootfs", "inspect", agent), "not an ext4 file system")
	wants(t, nexMain(t, 0, "rootfs", "--help"), "--script=script.sh", `--image="synadia/nex-rootfs:alpine"`, "--agent=../path/to/nex-agent", `157286400`)
	wants(t, nexMain(t, 0, "rootfs", "--image", "scratch", "--agent", agent, "--size", "8MiB", "-o", dir), "\nwrite files\n", "Wrote "+file)
	wants(t, nexMain(t, 1, "rootfs", "--image", "scratch", "--agent", agent, "-o", filepath.Join(dir, "no", "x.ext4")), "make "+filepath.Join(dir, "no")+" first")
	wants(t, nexMain(t, 1, "rootfs", "--image", "scratch", "--agent", agent, "-o", os.DevNull), "is there and is no file")
	wants(t, nexMain(t, 1, "rootfs", "--image", "scratch", "--agent", agent, "--run", "true", "-o", file), "build step cannot be run")
}

func TestBuildSteps(t *testing.T) {
	nextest.Root(t)
	base, file := nextest.Debian(t, "openrc"), filepath.Join(t.TempDir(), "rootfs.ext4")
	build := func(code int, args ...string) string {
		return nexMain(t, code, append([]string{"rootfs", "--image", base, "--agent", guestFile(t, "agent"), "--size", "80MiB", "-o", file}, args...)...)
	}
	wants(t, build(0, "--run", "echo one > /made", "--run", `cat /made; printf 'two\033[1m'`), "\nrun step 1 of 2\n", "\none\n", "\n"+`two\x1b[1m`+"\n", "Wrote "+file)
	wants(t, build(1, "--run", "echo before; exit 7"), `nex: error: build step 1 of 1, "echo before; exit 7", failed: exit status 7. The last it printed:`+"\nbefore\n")
	wants(t, build(1, "--run", "sleep 100", "--run-timeout", "1s"), "did not end within 1s")
}

func TestImageCommands(t *testing.T) {
	agent, kernel := guestFile(t, "agent"), guestFile(t, "vmlinux")
	store := filepath.Join(t.TempDir(), "images")
	image := func(code int, args ...string) string {
		return nexMain(t, code, append([]string{"image", "--dir", store}, args...)...)
	}
	wants(t, image(0, "ls"), "No images: nex image build makes one")
	build := []string{"build", "--kernel", kernel, "--init", agent, "--agent", agent}
	wants(t, image(0, build...), "Built image default in "+filepath.Join(store, "default")+": kernel 6.1.0-test")
	wants(t, image(0, append(build, "other")...), "Built image other")
	wants(t, image(0, "ls"), "default", "other", "6.1.0-test", "minimal")
	wants(t, image(0, "verify"), "Image default is as it was built", "Image other is as it was built")
	wants(t, image(1, "verify", "third"), "no such image: third")
	wants(t, image(1, append(build, "Bad Name")...), "cannot be an image's name")
	wants(t, image(0, "rm", "other"), "Removed image other")
	wants(t, image(0, "prune"), "Removed 0 files")
	wants(t, image(0, "rm", "default"), "Removed image default")
	wants(t, image(0, "prune"), "Removed 3 files")
	dir := filepath.Join(t.TempDir(), "wd")
	wants(t, image(1, append(build, "-o", dir)...), "either kept in a store")
	wants(t, nexMain(t, 0, append([]string{"image"}, append(build, "-o", dir)...)...), "Built "+dir)
	for _, name := range []string{"vmlinux", "initramfs", "rootfs.ext4", "image.json"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestImagesAreTheNodes: they are kept where the node of the configuration looks.
func TestImagesAreTheNodes(t *testing.T) {
	agent, kernel, dir := guestFile(t, "agent"), guestFile(t, "vmlinux"), t.TempDir()
	t.Chdir(dir)
	put := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	build := []string{"image", "build", "--kernel", kernel, "--init", agent, "--agent", agent}
	other := put("other.json", `{"sandbox": "qemu", "state_dir": "`+dir+`/other"}`)
	wants(t, nexMain(t, 0, append(build, "--config", other)...), "Built image default in "+dir+"/other/images/default:")
	put("config.json", `{"sandbox": "qemu", "state_dir": "here"}`) // the default
	var made struct {
		Dir    string
		Kernel struct{ Version string }
	}
	if err := json.Unmarshal([]byte(nexMain(t, 0, append(build, "--json")...)), &made); err != nil || made.Dir != dir+"/here/images/default" || made.Kernel.Version != "6.1.0-test" {
		t.Errorf("--json says %+v (%v)", made, err)
	}
	if err := os.Mkdir("here/images/half", 0o700); err != nil {
		t.Fatal(err)
	}
	wants(t, nexMain(t, 0, "image", "ls"), "default", "6.1.0-test", "here/images/half is no image: it has no image.json")
	wants(t, nexMain(t, 0, "image", "verify"), "Image default is as it was built", "here/images/half is no image")
	wants(t, nexMain(t, 0, "image", "prune"), "Removed 0 files", "here/images/half is no image")
	file := filepath.Join(made.Dir, "initramfs")
	if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	wants(t, nexMain(t, 1, "--json", "image", "verify"), `"verified": []`, `"default": "here/images/default/initramfs has changed`)

	put("config.json", `{"state_dir": "here", "default_resource_dir": "wd"}`)
	wants(t, nexMain(t, 0, "image", "ls"), `boots what is in wd ("default_resource_dir")`, "nex image build -o wd")
	put("config.json", `{"somebody": "else's"}`)
	wants(t, nexMain(t, 1, "image", "ls"), `unknown key "somebody"`, "name the node's with --config, or where images are kept with --dir")
	wants(t, nexMain(t, 1, "image", "ls", "--config", "none.json"), "nex node preflight --init sandbox|nosandbox --config none.json")

	for flags, want := range map[string]string{
		"-o wd --config " + other:               "either kept in a store",
		"-o wd default":                         "either kept in a store",
		"--dir wd --config " + other:            "--dir and --config both say",
		"--kernel-dir " + dir:                   "--kernel and --kernel-dir each name a kernel",
		"--rootfs " + kernel:                    "--rootfs has an agent already",
		"--rootfs " + kernel + " --size 100MiB": "--rootfs has an agent already",
	} {
		wants(t, nexMain(t, 1, append(build, strings.Fields(flags)...)...), want)
	}
	wants(t, nexMain(t, 1, "image", "build", "--modules", dir), "--modules are those of --kernel, which is not given")
	wants(t, nexMain(t, 1, "image", "build", "--rootfs", kernel, "--size", "100MiB"), "--rootfs has its size")
}
