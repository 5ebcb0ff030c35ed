package preflight

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nex/internal/nextest"
)

// makeRootfs makes an ext4 with the files of a tree.
func makeRootfs(t testing.TB, size string, files map[string]string) string {
	t.Helper()
	program := "mkfs.ext4"
	if _, err := exec.LookPath(program); err != nil {
		program = nextest.Program(t, "/usr/sbin/mkfs.ext4") // not in everybody's PATH
	}
	dir := t.TempDir()
	tree, image := filepath.Join(dir, "tree"), filepath.Join(dir, "rootfs.ext4")
	for name, text := range files {
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, link := strings.CutPrefix(text, "-> "); link {
			err = os.Symlink(to, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), program, "-q", "-F", "-d", tree, image, size).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return image
}

// inside looks for the agent in a file.
func inside(t testing.TB, path string) (int64, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // was only read
	return agentInside(f)
}

func TestAgentInside(t *testing.T) {
	crowd := map[string]string{agentPath: "agent"} // directories of many blocks
	for i := range 300 {
		crowd["usr/local/bin/a-program-with-a-long-name-"+strings.Repeat("x", 100)+string(rune('a'+i%26))+string(rune('a'+i/26%26))+string(rune('a'+i/676))] = "x"
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  string // of the error
	}{
		"there":            {map[string]string{agentPath: "agent", "etc/hosts": "x"}, ""},
		"among many":       {crowd, ""},
		"not there":        {map[string]string{"etc/hosts": "x"}, "there is no /usr/local/bin/agent in it"},
		"empty":            {map[string]string{agentPath: ""}, "is no program"},
		"a directory":      {map[string]string{agentPath + "/x": "x"}, "is no program"},
		"behind a link":    {map[string]string{"usr/local/bin": "-> /bin"}, "symbolic link"},
		"below a file":     {map[string]string{"usr/local": "x"}, "there is no"},
		"itself is a link": {map[string]string{agentPath: "-> /bin/agent"}, "is no program"},
	} {
		t.Run(name, func(t *testing.T) {
			size, err := inside(t, makeRootfs(t, "8M", c.files))
			switch {
			case c.want != "":
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
			case err != nil || size != int64(len("agent")):
				t.Errorf("got %d bytes, %v", size, err)
			}
		})
	}
	if _, err := agentInside(bytes.NewReader(make([]byte, 1<<20))); err == nil || !strings.Contains(err.Error(), "no ext4") {
		t.Errorf("zeros: %v", err)
	}
}

func FuzzAgentInside(f *testing.F) {
	image, err := os.ReadFile(makeRootfs(f, "512K", map[string]string{agentPath: "agent"}))
	if err != nil {
		f.Fatal(err)
	}
	// A whole image is too much to vary: it is patched in two places.
	f.Add(uint32(1024+0x18), []byte{9, 0, 0, 0}, uint32(0), []byte{})
	f.Add(uint32(1024+0xfe), []byte{0, 0}, uint32(2048), []byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, at uint32, what []byte, at2 uint32, what2 []byte) {
		broken := bytes.Clone(image)
		copy(broken[int(at)%len(broken):], what)
		copy(broken[int(at2)%len(broken):], what2)
		if size, err := agentInside(bytes.NewReader(broken)); err == nil && size <= 0 {
			t.Errorf("an agent of %d bytes", size)
		}
	})
}
