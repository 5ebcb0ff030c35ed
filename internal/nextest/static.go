package nextest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"nex/internal/machine"
)

// programs are built once for all tests of a package.
type programs struct {
	mu   sync.Mutex
	dir  string
	path map[string]string
}

var built programs

// StaticAgent returns the nex-agent program itself, as it runs where there are no
// libraries: for machines with a root directory of their own. It has no V8. The
// package's TestMain must be [Main].
func StaticAgent(t testing.TB) string {
	t.Helper()
	return built.program(t, machine.AgentName(), "CGO_ENABLED=0", "./cmd/nex-agent")
}

// StaticV8Agent is [StaticAgent] with V8, for tests with the build tag v8; it
// takes the environment that V8 is built in, as make test sets it.
func StaticV8Agent(t testing.TB) string {
	t.Helper()
	return built.program(t, "nex-agent-v8", "CGO_ENABLED=1",
		"-tags", "v8,netgo,osusergo", "-ldflags", `-s -w -linkmode external -extldflags "-static"`, "./cmd/nex-agent")
}

// GuestProgram returns a static program that, as a service, does what its first
// argument says: see testdata/guest. The package's TestMain must be [Main].
func GuestProgram(t testing.TB) string {
	t.Helper()
	return built.program(t, "guest", "CGO_ENABLED=0", "./internal/nextest/testdata/guest")
}

// programsVariable names a directory that has the programs already: for tests that run
// in a process which can build nothing.
const programsVariable = "NEX_TEST_PROGRAMS"

// ProgramsDir returns what to set in the environment of a test that shall find
// the programs that this one has built.
func ProgramsDir() (setting string) {
	if dir := os.Getenv(programsVariable); dir != "" {
		return programsVariable + "=" + dir
	}
	return programsVariable + "=" + built.dir
}

func (p *programs) program(t testing.TB, name, cgo string, args ...string) string {
	t.Helper()
	if dir := os.Getenv(programsVariable); dir != "" {
		return filepath.Join(dir, name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if path := p.path[name]; path != "" {
		return path
	}
	if p.dir == "" {
		dir, err := os.MkdirTemp("", "nextest")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil { // for other users' tests
			t.Fatal(err)
		}
		p.dir, p.path = dir, map[string]string{}
	}
	_, here, _, _ := runtime.Caller(0)
	path := filepath.Join(p.dir, name)
	cmd := exec.Command("go", append([]string{"build", "-o", path}, args...)...)
	cmd.Dir = filepath.Dir(filepath.Dir(filepath.Dir(here)))
	cmd.Env = append(os.Environ(), cgo, "GOFLAGS=")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, output)
	}
	p.path[name] = path
	return path
}

// LiarInit returns a static program that is an agent which lies, for a microVM. The
// package's TestMain must be [Main].
func LiarInit(t testing.TB) string {
	t.Helper()
	return built.program(t, "liar", "CGO_ENABLED=0", "./internal/nextest/testdata/liar")
}
