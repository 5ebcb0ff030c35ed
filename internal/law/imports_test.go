package law_test

import (
	"slices"
	"strings"
	"testing"
)

// mayImport says which packages of this module a package may import: those
// below it in the picture of docs/ARCHITECTURE.md, and no other. "nex" is the
// root package; packages below internal go by the rest of their path.
var mayImport = map[string]string{
	// The public contract, and what stands on nothing else.
	"cgroup":        "nex",
	"nex":           "",
	"confine":       "nex",
	"direct":        "",
	"keyfile":       "",
	"law":           "",
	"sdnotify":      "",
	"undo":          "",
	"vmnet":         "vmnet/forward vmnet/tap",
	"vmnet/forward": "",
	"vmnet/tap":     "",

	// The guest's side: the agent runs engines, and alone knows which there are.
	"cmd/nex-agent":      "agent cgroup confine guest guestos",
	"cmd/nex-init":       "",
	"bench":              "nex",
	"agent":              "direct guest hostsock runtime runtime/js runtime/js/quickjs runtime/js/v8 runtime/native runtime/wasm nex",
	"guestos":            "confine",
	"hostsock":           "runtime nex",
	"runtime":            "nex",
	"runtime/js":         "runtime nex",
	"runtime/js/quickjs": "runtime/js runtime nex",
	"runtime/js/v8":      "runtime/js runtime nex",
	"runtime/native":     "runtime nex",
	"runtime/wasm":       "runtime nex",

	// Between the two sides.
	"guest": "nex",

	// The node's side. Workloads know guests, never the machines around them.
	"cmd/nex":             "config confine image keyfile node preflight rootfs sdnotify vmnet/forward vmnet/tap nex",
	"node":                "artifact cgroup config confine control direct guest hostsvc image keyfile machine machine/firecracker machine/microvm machine/qemu sdnotify undo vmnet workload nex",
	"config":              "hostsvc vmnet nex",
	"control":             "nex",
	"workload":            "artifact direct guest undo nex",
	"machine":             "cgroup confine direct guest undo nex",
	"machine/microvm":     "cgroup machine rootfs undo vmnet nex",
	"machine/firecracker": "cgroup direct machine machine/microvm guest undo vmnet nex",
	"machine/qemu":        "cgroup machine machine/microvm guest undo vmnet nex",
	"artifact":            "nex",
	"hostsvc":             "direct guest nex",
	"image":               "rootfs undo",
	"preflight":           "cgroup config confine keyfile machine machine/firecracker machine/microvm machine/qemu rootfs vmnet vmnet/tap nex",
	"rootfs":              "confine undo",

	// Test support. What rawclient knows of the wire it knows from its description.
	"rawclient":                 "",
	"nextest":                   "agent cgroup confine guest machine nextest/leaks nextest/liar runtime undo vmnet/forward vmnet/tap nex",
	"nextest/leaks":             "",
	"nextest/liar":              "",
	"machine/firecracker/fcemu": "", // also a program of its own, in tests

	// A test of all of it, whose processes are nodes and agents too.
	"test/chaos": "config machine nextest nextest/liar node nex",
}

// onlyImporter says which package alone may import a library, so that the rest
// can do without it; with _test it is tests of a package that look at what another one did.
var onlyImporter = map[string]string{
	"github.com/tetratelabs/wazero":          "runtime/wasm",
	"github.com/Microsoft/hcsshim":           "rootfs",
	"github.com/google/go-containerregistry": "rootfs machine/qemu_test",
	"modernc.org/quickjs":                    "runtime/js/quickjs",
	"modernc.org/libquickjs":                 "runtime/js/quickjs",
	"github.com/tommie/v8go":                 "runtime/js/v8",
	"github.com/nlnwa/whatwg-url":            "runtime/js",
	"github.com/getkin/kin-openapi":          "machine/firecracker/fcemu",
	"github.com/google/nftables":             "vmnet node_test",
}

func TestImportsRunOneWay(t *testing.T) {
	for _, s := range tree(t) {
		allowed, known := packagesFor(s)
		if !known {
			t.Errorf("%s: package %s has no row in mayImport (internal/law/imports_test.go): add it where it belongs, with what it may import", s.path, s.pkg)
			continue
		}
		for _, imported := range s.imports() {
			if pkg, ok := local(imported); ok && !slices.Contains(allowed, pkg) {
				t.Errorf("%s: package %s must not import %s; it may import [%s]. Declare an interface where it is used, move the code, or change mayImport (internal/law/imports_test.go) and docs/ARCHITECTURE.md together",
					s.path, s.pkg, pkg, strings.Join(allowed, " "))
			}
		}
	}
}

// packagesFor returns the packages of this module that s may import, and false
// when the law does not know the package of s. A test may also import its own
// package, those in directories below it, and test support.
func packagesFor(s source) ([]string, bool) {
	row, known := mayImport[s.pkg]
	if strings.HasPrefix(s.pkg, "examples/") {
		row, known = "nex examples/wasm/nexhost", true // examples are written as users write programs
	}
	allowed := strings.Fields(row)
	if s.test {
		allowed = append(allowed, s.pkg, "nextest", "nextest/leaks", "nextest/liar", "rawclient", "machine/firecracker/fcemu")
		for pkg := range mayImport {
			if strings.HasPrefix(pkg, s.pkg+"/") {
				allowed = append(allowed, pkg)
			}
		}
	}
	return allowed, known
}

func TestLibrariesHaveOneImporter(t *testing.T) {
	for _, s := range tree(t) {
		for _, imported := range s.imports() {
			for library, importer := range onlyImporter {
				pkg := s.pkg
				if s.test {
					pkg += "_test"
				}
				if within(imported, library) && !slices.ContainsFunc(strings.Fields(importer), func(i string) bool { return i == s.pkg || i == pkg }) {
					t.Errorf("%s: only %s imports %s; use what it offers", s.path, importer, library)
				}
			}
		}
	}
}

// within reports whether an import path is a module or a package of it, of
// whatever major version.
func within(importPath, module string) bool {
	return importPath == module || strings.HasPrefix(importPath, module+"/")
}
