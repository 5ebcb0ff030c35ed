package fcemu

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Programs are the paths of the two programs that a test may run.
type Programs struct{ Firecracker, Jailer string }

// sdk is the module that has the description of the API. Its version is in
// tools/go.mod; nothing of it is built.
const sdk = "github.com/firecracker-microvm/firecracker-go-sdk"

// Install makes the two programs of this test binary, whose main must begin with
// [Shim], in a directory of the test. Firecracker says it has the given version, "" for
// one that the driver takes. qemu is the path of QEMU, "" if nothing is to be
// booted.
func Install(t testing.TB, qemu, version string) Programs {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	tools := filepath.Join(filepath.Dir(here), "../../../../tools")
	if version == "" {
		version = "1.12.0"
	}
	list := exec.Command("go", "mod", "download", "-json", sdk)
	list.Dir = tools
	output, err := list.Output()
	if err != nil {
		t.Fatalf("find the description of Firecracker's API: %s in %s: %v", list, tools, err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(output, &module); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(settings{Version: version, Spec: filepath.Join(module.Dir, "client", "swagger.yaml"), QEMU: qemu})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, settingsFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := Programs{filepath.Join(dir, firecrackerName), filepath.Join(dir, jailerName)}
	for _, path := range []string{p.Firecracker, p.Jailer} {
		if err := place(self, path); err != nil { // not a symbolic link: the jailer follows it to the name of the program
			t.Fatal(err)
		}
	}
	return p
}

// place makes a hard link, or else a copy.
func place(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
