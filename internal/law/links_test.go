package law_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mustNotLink says which libraries a binary must not contain, and why.
var mustNotLink = map[string]map[string]string{
	"cmd/nex-agent": {
		"github.com/nats-io/nats-server": "guests have no NATS of their own: the agent talks to its node over the guest link",
	},
	"cmd/nex": {
		"github.com/tommie/v8go":        "user code never runs in the node, and nex is built without cgo",
		"modernc.org/libquickjs":        "user code never runs in the node",
		"github.com/tetratelabs/wazero": "user code never runs in the node",
		"github.com/getkin/kin-openapi": "the emulator of Firecracker is for tests",
	},
}

// TestBinariesDoNotLink asks the go command for everything a binary is made
// of, other modules included, with and without the build tag of the V8 engine.
func TestBinariesDoNotLink(t *testing.T) {
	files := tree(t) // reads every local file: see the package comment on the test cache
	for _, name := range []string{"go.mod", "go.sum"} {
		if _, err := os.ReadFile(filepath.Join(root(t), name)); err != nil {
			t.Fatal(err)
		}
	}
	for binary, bans := range mustNotLink {
		t.Run(binary, func(t *testing.T) {
			if !hasPackage(files, binary) {
				t.Skipf("there is no %s", binary)
			}
			for _, tags := range []string{"", "v8"} {
				linked := dependencies(t, binary, tags)
				for library, why := range bans {
					i := slices.IndexFunc(linked, func(pkg string) bool { return within(pkg, library) })
					if i >= 0 {
						t.Errorf("%s (tags %q) must not link %s: %s. \"go mod why %s\" may tell through what", binary, tags, library, why, linked[i])
					}
				}
			}
		})
	}
}

// dependencies returns the import paths of all packages in a binary. It
// downloads nothing, and does without V8 where that was never needed.
func dependencies(t *testing.T, binary, tags string) []string {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-e", "-deps", "-tags", tags, "./"+binary)
	list.Dir = root(t)
	list.Env = append(os.Environ(), "GOPROXY=off")
	var complaint strings.Builder
	list.Stderr = &complaint
	out, err := list.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", list, err, complaint.String())
	}
	return strings.Fields(string(out))
}

// hasPackage reports whether a package has files that are not tests.
func hasPackage(files []source, pkg string) bool {
	for _, s := range files {
		if s.pkg == pkg && !s.test {
			return true
		}
	}
	return false
}
