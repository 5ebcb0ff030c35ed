package machine

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"nex/internal/cgroup"
	"nex/internal/confine"
)

// Processes launches agents as child processes: in the OS sandbox, or plain, for
// development and for hosts that are sandboxed themselves.
type Processes struct {
	Agent string // path of the nex-agent executable
	Dir   string // holds a directory per machine
	Cache string // where agents keep compiled code, below it a directory per tenant; "" means nowhere; confined ones compile each time
	Log   *slog.Logger

	Confine *confine.Config // the OS sandbox; nil for none
	// Groups is where each machine gets a cgroup of its own; nil for none.
	Groups *cgroup.Root
}

// AgentName is the agent's file name on this system.
func AgentName() string {
	if runtime.GOOS == "windows" {
		return "nex-agent.exe"
	}
	return "nex-agent"
}

// FindAgent returns the path of the agent to launch: the configured one, the
// one beside this program, or the one on PATH.
func FindAgent(configured string) (string, error) {
	if configured != "" {
		path, err := exec.LookPath(configured)
		if err != nil {
			return "", fmt.Errorf("agent_path: %w", err)
		}
		return filepath.Abs(path)
	}
	self, err := os.Executable()
	if err == nil {
		beside := filepath.Join(filepath.Dir(self), AgentName())
		if path, err := exec.LookPath(beside); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(AgentName())
	if err != nil {
		return "", fmt.Errorf("%s is neither beside %s nor on PATH: install it there or set \"agent_path\" in the node's configuration", AgentName(), self)
	}
	return filepath.Abs(path)
}

// relay passes an agent's own diagnostics to the node's log.
func relay(log *slog.Logger, output io.Reader) {
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		log.Warn("Agent says", "text", lines.Text())
	}
	_, _ = io.Copy(io.Discard, output) // past a line too long to scan
}
